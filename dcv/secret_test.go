package dcv

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/libdns/libdns"
	"github.com/miekg/dns"
)

// careless is a provider that sends its key in the URL, as some do, to an API that is not there.
type careless struct{}

func (careless) call(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://api.invalid/xml.response?ApiKey=t0ps3cret&Command=x", nil)
	if err != nil {
		return err
	}
	return &url.Error{Op: "Get", URL: req.URL.String(), Err: errors.New("connection refused")} // that of http.Client.Do
}

func (c careless) GetRecords(ctx context.Context, _ string) ([]libdns.Record, error) {
	return nil, c.call(ctx)
}

func (c careless) AppendRecords(ctx context.Context, _ string, _ []libdns.Record) ([]libdns.Record, error) {
	return nil, c.call(ctx)
}

func (c careless) DeleteRecords(ctx context.Context, _ string, _ []libdns.Record) ([]libdns.Record, error) {
	return nil, c.call(ctx)
}

// TestKeyInURLIsNotTold: errors of the provider go into logs, the ledger and the output of commands.
func TestKeyInURLIsNotTold(t *testing.T) {
	r := record(t, "shop.example.com", "_x", "TXT", "y")
	type mute struct{ changer }
	for _, provider := range []changer{careless{}, mute{careless{}}} {
		d := &DNS{
			Provider: provider, findZone: func(context.Context, string) (string, error) { return "example.com.", nil },
			exchange: func(context.Context, *dns.Msg, string) (*dns.Msg, error) { return nil, errors.New("no network") },
		}
		_, added := d.Present(t.Context(), r)
		for _, err := range []error{added, d.Remove(t.Context(), r)} {
			if err == nil || strings.Contains(err.Error(), "t0ps3cret") || !strings.Contains(err.Error(), "http://api.invalid/xml.response") ||
				!strings.Contains(err.Error(), "connection refused") {
				t.Errorf("error = %v", err)
			}
			if _, ok := errors.AsType[*url.Error](err); !ok {
				t.Errorf("its cause is lost: %v", err)
			}
		}
	}
}

// The same where a provider makes its errors of several, or of their texts.
func TestKeyInURLsIsNotTold(t *testing.T) {
	one := careless{}.call(t.Context())
	for _, err := range []error{
		fmt.Errorf("calling the API: %v", one), //nolint:errorlint // as some do
		errors.Join(errors.New("two records"), one, &url.Error{Op: "Get", URL: "https://api.invalid/second?key=t0ps3cret", Err: io.EOF}),
	} {
		told := withoutQuery(err)
		if text := told.Error(); strings.Contains(text, "t0ps3cret") || !strings.Contains(text, "http://api.invalid/xml.response") || !strings.Contains(text, "connection refused") {
			t.Errorf("error = %v", told)
		}
		if !errors.Is(told, err) {
			t.Errorf("its cause is lost: %v", told)
		}
	}
	if plain := errors.New("is it in the zone? nobody knows"); !errors.Is(withoutQuery(plain), plain) || withoutQuery(plain).Error() != plain.Error() {
		t.Errorf("error = %v", withoutQuery(plain))
	}
}

type changer interface {
	libdns.RecordAppender
	libdns.RecordDeleter
}
