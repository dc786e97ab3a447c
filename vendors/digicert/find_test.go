package digicert

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/caddy-commercial/caddy-commercial/internal/csrtest"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

func TestFindByReference(t *testing.T) {
	for _, tt := range []struct {
		status  int
		body    string
		want    []string
		verdict vendors.Verdict // -1 means success
	}{
		{200, `{"orders":[{"order_id":4300000001,"certificate_id":2,"status":"pending"}],"page":{"total":1}}`, []string{"4300000001"}, -1},
		{200, `{"orders":[{"order_id":"1"},{"order_id":2},{"order_id":1}]}`, []string{"1", "2"}, -1},
		{200, `{"orders":[]}`, nil, -1},
		{404, refusal("not_found|order"), nil, -1},
		{404, refusal("not_found"), nil, -1},
		{404, refusal("not_found|route"), nil, vendors.Permanent},
		{404, `<html>not here</html>`, nil, vendors.Retryable},
		{404, `{}`, nil, vendors.Retryable},
		{200, `{}`, nil, -1},
		{200, ` { } `, nil, -1},
		{200, `[]`, nil, -1},
		{200, `{"orders":null}`, nil, -1},
		{200, `{"orders":{},"page":{"total":"0"}}`, nil, -1},
		{200, `{"page":{"total":0,"limit":1000,"offset":0}}`, nil, -1},
		{200, `{"page":{"total":1,"limit":1000,"offset":0}}`, nil, vendors.Retryable},
		{200, `{"orders":[],"page":{"total":1}}`, nil, vendors.Retryable},
		{200, `{"page":{},"status":"maintenance"}`, nil, vendors.Retryable},
		{200, `{"order_id":1}`, nil, vendors.Retryable},
		{200, `{"orders":{"order_id":1}}`, nil, vendors.Retryable},
		{200, `{"orders":"none"}`, nil, vendors.Retryable},
		{200, `{"orders":"[]"}`, nil, vendors.Retryable},
		{200, `[{"order_id":1}]`, nil, vendors.Retryable},
		{200, `null`, nil, vendors.Retryable},
		{200, refusal("server_error"), nil, vendors.Retryable},
		{200, `{"orders":[{"certificate_id":2}]}`, nil, vendors.Retryable},
		{403, refusal("access_denied|access_denied_invalid_key"), nil, vendors.Permanent},
		{429, refusal("request_limit_exceeded"), nil, vendors.Retryable},
	} {
		f := newFake(t)
		f.expect("GET /order/alternate/ref-1", "", tt.status, tt.body)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		got, err := f.orders.Find(ctx, vendors.Lookup{Reference: "ref-1"})
		cancel()
		if (err == nil) != (tt.verdict < 0) || err != nil && vendors.VerdictOf(err) != tt.verdict || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("HTTP %d %s: %v, %v", tt.status, tt.body, got, err)
		}
	}
}

// TestSecondWitness is about what is found among the newest orders for the name if the reference
// finds nothing.
func TestSecondWitness(t *testing.T) {
	sent := time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)
	type row struct {
		created time.Duration // after the request was sent
		info    string
	}
	const (
		ours       = `,"alternative_order_id":"ref-1"`
		others     = `,"alternative_order_id":"ref-2"`
		anonymous  = ``
		byComment  = `,"requests":[{"id":1,"comments":"x"},{"id":2,"type":"reissue","comments":"caddy-commercial ref-1"}]`
		otherNotes = `,"requests":[{"id":1,"comments":"caddy-commercial ref-2"}]`
		noCSR      = `,"certificate":{"csr":"-----BEGIN CERTIFICATE REQUEST-----…"}`
	)
	csr := csrtest.DER(t, "example.com")
	withCSR := func(der []byte) string { return fmt.Sprintf(`,"certificate":{"csr":%q}`, pemRequest(der)) }
	for name, tt := range map[string]struct {
		rows        []row
		want        []string
		undecidable bool
	}{
		"none":                           {nil, nil, false},
		"not shown by reference yet":     {[]row{{time.Minute, ours}}, []string{"1000"}, false},
		"two of ours":                    {[]row{{time.Minute, ours}, {time.Minute, ours}}, []string{"1000", "1001"}, false},
		"ours and a stranger's":          {[]row{{time.Minute, anonymous}, {time.Minute, ours}}, []string{"1001"}, false},
		"somebody else's reference":      {[]row{{time.Minute, others}, {time.Minute, otherNotes}}, nil, false},
		"without a reference, after":     {[]row{{time.Minute, anonymous}}, nil, true},
		"without a reference, about now": {[]row{{-time.Minute, anonymous}}, nil, true},
		"without a reference, before":    {[]row{{-49 * time.Hour, anonymous}}, nil, false},
		"ours, by a clock that is wrong": {[]row{{-47 * time.Hour, ours}}, []string{"1000"}, false},
		"only the CSR is ours":           {[]row{{time.Minute, withCSR(csr)}}, []string{"1000"}, false},
		"a stranger's CSR":               {[]row{{time.Minute, withCSR(csrtest.DER(t, "example.com"))}}, nil, false},
		"a CSR that cannot be read":      {[]row{{time.Minute, noCSR}}, nil, true},
		"ours by its comment":            {[]row{{time.Minute, byComment}}, []string{"1000"}, false},
		"old ones are not looked at":     {[]row{{time.Minute, others}, {-5000 * time.Hour, byComment}}, nil, false},
	} {
		f := newFake(t)
		f.expect("GET /order/alternate/ref-1", "", 200, `{"orders":[]}`)
		list := ""
		for i, r := range tt.rows {
			id := fmt.Sprint(1000 + i)
			list += fmt.Sprintf(`,{"id":%s,"organization":[],"date_created":%q}`, id, sent.Add(r.created).Format(time.RFC3339))
			f.expect("GET /order/certificate/"+id, "", 200, `{"id":`+id+`,"status":"pending"`+r.info+`}`)
		}
		f.expect(listRequest, "", 200, fmt.Sprintf(`{"orders":[%s],"page":{"total":%d}}`, trimComma(list), len(tt.rows)))
		got, err := f.orders.Find(t.Context(), vendors.Lookup{Reference: "ref-1", Names: []string{"example.com"}, CSR: csr, Sent: sent})
		if !reflect.DeepEqual(got, tt.want) || errors.Is(err, vendors.ErrUndecidable) != tt.undecidable || (err != nil) != tt.undecidable {
			t.Errorf("%s: %v, %v", name, got, err)
		}
		if err != nil && vendors.VerdictOf(err) != vendors.Retryable {
			t.Errorf("%s: not retryable, although time may resolve it: %v", name, err)
		}
	}
}

func trimComma(s string) string {
	if s == "" {
		return s
	}
	return s[1:]
}

// TestSecondWitnessFails: a second witness that says nothing usable does not prove absence.
func TestSecondWitnessFails(t *testing.T) {
	for _, tt := range []struct {
		list   string
		status int
	}{
		{`{"status":"busy"}`, 200}, {`{"orders":[{"id":""}]}`, 200}, {`{"orders":"x"}`, 200}, {refusal("access_denied|missing_permission"), 403},
		{`{"orders":[{"id":5}]}`, 200}, // whose info cannot be read
	} {
		f := newFake(t)
		f.expect("GET /order/alternate/ref-1", "", 404, refusal("not_found|order"))
		f.expect(listRequest, "", tt.status, tt.list)
		f.expect("GET /order/certificate/5", "", 404, refusal("not_found|order"))
		got, err := f.orders.Find(t.Context(), vendors.Lookup{Reference: "ref-1", Names: []string{"example.com"}, Sent: time.Now()})
		if err == nil || len(got) > 0 || errors.Is(err, vendors.ErrUndecidable) {
			t.Errorf("%s: %v, %v", tt.list, got, err)
		}
	}
}

// TestFindReissue: a reissue is looked up in its own order: other purchases for the name, by
// anybody, say nothing about it.
func TestFindReissue(t *testing.T) {
	csr := csrtest.DER(t, "example.com")
	for name, tt := range map[string]struct {
		status int
		info   string
		want   []string
		is     error
	}{
		"in progress":          {200, `{"id":5,"status":"reissue_pending"}`, []string{"5"}, nil},
		"done, by comment":     {200, `{"id":5,"status":"issued","requests":[{"comments":"caddy-commercial ref-1"}]}`, []string{"5"}, nil},
		"done, by CSR":         {200, fmt.Sprintf(`{"id":5,"status":"issued","certificate":{"csr":%q}}`, pemRequest(csr)), []string{"5"}, nil},
		"had no effect":        {200, fmt.Sprintf(`{"id":5,"status":"issued","certificate":{"csr":%q}}`, pemRequest(csrtest.DER(t, "example.com"))), nil, nil},
		"nothing told":         {200, `{"id":5,"status":"issued"}`, nil, nil},
		"order is not there":   {404, refusal("not_found|order"), nil, vendors.ErrNotFound},
		"answer says no order": {200, `{}`, nil, errAny},
	} {
		f := newFake(t) // fails on any other request, such as one for a list
		f.expect("GET /order/certificate/5", "", tt.status, tt.info)
		got, err := f.orders.Find(t.Context(), vendors.Lookup{
			Reference: "ref-1", Names: []string{"example.com"}, CSR: csr, OrderID: "5", Sent: time.Now(),
		})
		if !reflect.DeepEqual(got, tt.want) || (err != nil) != (tt.is != nil) || tt.is != nil && !errors.Is(tt.is, errAny) && !errors.Is(err, tt.is) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

var errAny = errors.New("any error")

// TestSecondWitnessByDate: an order of which only the day is known may have been placed after the
// request.
func TestSecondWitnessByDate(t *testing.T) {
	sent := time.Date(2026, 3, 2, 20, 0, 0, 0, time.UTC)
	for date, undecidable := range map[string]bool{"2026-03-03": true, "2026-03-01": true, "2026-02-28": false} {
		f := newFake(t)
		f.expect("GET /order/alternate/ref-1", "", 404, refusal("not_found"))
		f.expect(listRequest, "", 200, `{"orders":[{"id":7,"date_created":"`+date+`"}],"page":{"total":1}}`)
		f.expect("GET /order/certificate/7", "", 200, `{"id":7,"status":"pending"}`)
		got, err := f.orders.Find(t.Context(), vendors.Lookup{Reference: "ref-1", Names: []string{"example.com"}, CSR: csrtest.DER(t, "example.com"), Sent: sent})
		if len(got) > 0 || errors.Is(err, vendors.ErrUndecidable) != undecidable || (err != nil) != undecidable {
			t.Errorf("%s: %v, %v", date, got, err)
		}
	}
}

// TestListOrders: all pages are read, however many orders the service puts on one, and whatever is
// placed meanwhile.
func TestListOrders(t *testing.T) {
	row := func(id int) string {
		return fmt.Sprintf(`{"id":%d,"status":"issued","certificate":{"common_name":"A.example","dns_names":["b.example"]},"date_created":"2026-03-02T20:00:00+00:00"}`, id)
	}
	const path = "GET /order/certificate?limit=1000&sort=-date_created&offset="
	for name, pages := range map[string][]string{
		"two pages":          {`{"orders":[` + row(3) + `,` + row(2) + `],"page":{"total":3}}`, "", `{"orders":[` + row(1) + `],"page":{"total":3}}`},
		"one placed between": {`{"orders":[` + row(3) + `,` + row(2) + `],"page":{"total":3}}`, "", `{"orders":[` + row(2) + `,` + row(1) + `],"page":{"total":4}}`, `{"orders":[` + row(1) + `],"page":{"total":4}}`},
		"no total":           {`{"orders":[` + row(3) + `,` + row(2) + `,` + row(1) + `]}`},
		"page is not obeyed": {`{"orders":[` + row(3) + `,` + row(2) + `,` + row(1) + `],"page":{"total":9}}`, "", "", `{"orders":[` + row(3) + `],"page":{"total":9}}`},
	} {
		f := newFake(t)
		for offset, page := range pages {
			if page != "" {
				f.expect(strings.Replace(path, "&sort=-date_created&offset=", fmt.Sprintf("&offset=%d&sort=-date_created", offset), 1), "", 200, page)
			}
		}
		var ids []string
		if err := f.orders.ListOrders(t.Context(), func(o vendors.ListedOrder) error {
			if o.Status != vendors.StatusIssued || !reflect.DeepEqual(o.Names, []string{"a.example", "b.example"}) || o.Created.IsZero() {
				t.Errorf("%+v", o)
			}
			ids = append(ids, o.ID)
			return nil
		}); err != nil || strings.Join(ids, " ") != "3 2 1" {
			t.Errorf("%s: %v, %v", name, ids, err)
		}
	}
	f := newFake(t)
	f.expect("GET /order/certificate?limit=1000&offset=0&sort=-date_created", "", 200, `{"orders":[],"page":{"total":7}}`)
	if err := f.orders.ListOrders(t.Context(), nil); err == nil {
		t.Error("a list with fewer orders than its total was accepted as complete")
	}
}
