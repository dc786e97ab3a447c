package kit

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// Time implements vendors.Clock, by the Date header that any answer has. It asks for the endpoint
// itself and sends no credential.
func (c *Client) Time(ctx context.Context) (time.Time, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, c.base, nil)
	if err != nil {
		return time.Time{}, fmt.Errorf("asking %s for the time: %w", c.about.Name, err)
	}
	resp, err := c.reads.RoundTrip(req)
	if err != nil {
		return time.Time{}, fmt.Errorf("asking %s for the time: %w", c.about.Name, err)
	}
	_ = resp.Body.Close() // HEAD has none
	now, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		return time.Time{}, fmt.Errorf("asking %s for the time: the answer has no date", c.about.Name)
	}
	return now, nil
}
