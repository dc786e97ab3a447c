package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
	"github.com/caddy-commercial/caddy-commercial/internal/test/e2e/dnsprovider"
)

// nameServer is a running BIND that has the zone example.com and accepts signed
// updates to it.
type nameServer struct {
	t        *testing.T
	addr     string
	provider dnsprovider.Provider
}

// The key of all name servers here is no secret.
const (
	keyName   = "e2e"
	keySecret = "bm9ib2R5IG5lZWRzIHRvIGhpZGUgdGhpcyBrZXkhISE="
)

// othersText is a record that somebody else has where DigiCert's records go.
const othersText = "of-somebody-else"

const namedConf = `
key "%[1]s" { algorithm hmac-sha256; secret "%[2]s"; };
options {
	directory "%[3]s";
	pid-file "%[3]s/named.pid";
	session-keyfile "%[3]s/session.key";
	listen-on port %[4]d { 127.0.0.1; };
	listen-on-v6 { none; };
	recursion no;
	dnssec-validation no;
	notify no;
	allow-transfer { key "%[1]s"; };
};
controls { };
zone "example.com" {
	type primary;
	file "%[3]s/example.com.zone";
	update-policy { grant "%[1]s" zonesub ANY; };
};
`

const zoneFile = `$TTL 60
@ SOA ns hostmaster 1 3600 600 86400 1
@ NS ns
ns A 127.0.0.1
_dnsauth.shop TXT "` + othersText + `"
_dnsauth.delegated CNAME proofs
`

// others are the records of that file, except those that describe the zone.
var others = []string{"_dnsauth.delegated CNAME proofs.example.com.", "_dnsauth.shop TXT " + othersText, "ns A 127.0.0.1"}

// startNamed runs BIND until the end of the test.
func startNamed(t *testing.T) *nameServer {
	t.Helper()
	binary, err := exec.LookPath("named")
	if err != nil {
		// Debian installs it in a directory that only root has in PATH.
		if binary, err = exec.LookPath("/usr/sbin/named"); err != nil {
			t.Skip("this test needs the name server BIND 9, on Debian: apt-get install bind9")
		}
	}
	dir := t.TempDir()
	port := freePort(t)
	for file, text := range map[string]string{
		"named.conf":       fmt.Sprintf(namedConf, keyName, keySecret, dir, port),
		"example.com.zone": zoneFile,
	} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n := &nameServer{t: t, addr: fmt.Sprintf("127.0.0.1:%d", port)}
	n.provider = dnsprovider.Provider{Server: n.addr, KeyName: keyName, Secret: keySecret}

	var log bytes.Buffer
	cmd := exec.Command(binary, "-g", "-c", filepath.Join(dir, "named.conf"))
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		// It may have ended already.
		_ = cmd.Process.Kill()
		<-ended //nolint:errcheck // it was killed
		if t.Failed() {
			t.Logf("log of BIND:\n%s", log.String())
		}
	})
	deadline := time.After(patience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if answer, err := n.ask(t.Context(), "example.com", dns.TypeSOA); err == nil && len(answer) > 0 {
			return n
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("BIND ended: %v", err)
		case <-deadline:
			t.Fatal("BIND does not answer")
		case <-tick.C:
		}
	}
}

// ask asks the server for the records of a name.
func (n *nameServer) ask(ctx context.Context, name string, kind uint16) ([]dns.RR, error) {
	question := new(dns.Msg)
	question.SetQuestion(dns.Fqdn(name), kind)
	answer, err := dns.ExchangeContext(ctx, question, n.addr)
	if err != nil {
		return nil, err
	}
	if answer.Rcode != dns.RcodeSuccess {
		return nil, fmt.Errorf("%s: %s", name, dns.RcodeToString[answer.Rcode])
	}
	return answer.Answer, nil
}

// lookUp makes the CA use this server.
func (n *nameServer) lookUp(c *hostile.Config) {
	c.LookupCNAME = func(ctx context.Context, host string) (string, error) {
		answer, err := n.ask(ctx, host, dns.TypeCNAME)
		if err != nil || len(answer) == 0 {
			return "", errors.Join(errors.New("no CNAME"), err)
		}
		return answer[0].(*dns.CNAME).Target, nil
	}
	c.LookupTXT = func(ctx context.Context, host string) ([]string, error) {
		answer, err := n.ask(ctx, host, dns.TypeTXT)
		var values []string
		for _, rr := range answer {
			if txt, ok := rr.(*dns.TXT); ok {
				values = append(values, strings.Join(txt.Txt, ""))
			}
		}
		return values, err
	}
}

// zone lists the records of example.com, except those that describe the zone.
func (n *nameServer) zone() []string {
	n.t.Helper()
	list, err := n.provider.GetRecords(n.t.Context(), "example.com.")
	if err != nil {
		n.t.Fatal(err)
	}
	var lines []string
	for _, record := range list {
		if rr := record.RR(); rr.Type != "SOA" && rr.Type != "NS" {
			lines = append(lines, rr.Name+" "+rr.Type+" "+rr.Data)
		}
	}
	slices.Sort(lines)
	return lines
}

// proofs are the records that were added to the zone.
func (n *nameServer) proofs() []string {
	n.t.Helper()
	return slices.DeleteFunc(n.zone(), func(line string) bool { return slices.Contains(others, line) })
}

// clean waits until only the records of others are in the zone.
func (w *world) clean(n *nameServer) {
	w.t.Helper()
	w.await("the records to be removed", func() error {
		if own := n.proofs(); len(own) > 0 {
			return fmt.Errorf("there are %q", own)
		}
		return nil
	})
	if all := n.zone(); !slices.Equal(all, others) {
		w.t.Errorf("the zone has %q, want %q as before", all, others)
	}
}

// dcv is the option of an issuer that proves its names by this server's records.
func (n *nameServer) dcv(secret string) string {
	return "dcv dns " + n.module(secret) + "resolvers " + n.addr + "\n"
}

// module is the provider with its block.
func (n *nameServer) module(secret string) string {
	return fmt.Sprintf("e2e_update %s {\n\tkey %s %s\n}\n", n.addr, keyName, secret)
}
