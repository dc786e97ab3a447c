package issuer

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// TestRunningCaddyThatDoesNotAnswer, such as one that is loading a config, does not block the check.
func TestRunningCaddyThatDoesNotAnswer(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		cancel()
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
		}
		_, _ = w.Write([]byte("{}"))
	}))
	defer server.Close()
	defer close(ended)
	in := new(inspection)
	if err := in.askRunning(ctx, server.Listener.Addr().String()); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v", err)
	}
}
