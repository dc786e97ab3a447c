package main

import "testing"

// TestPeerIsValidated: the peer's file is stored, fetched by the stand-in for its CA, and
// deleted.
func TestPeerIsValidated(t *testing.T) {
	ports, err := freePorts(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	counted, err := countZeroSSL(t.Context(), t.TempDir(), ports[0])
	if err != nil || counted.issuer != 3 {
		t.Errorf("%d operations on the validation file, want 3, %v", counted.issuer, err)
	}
}
