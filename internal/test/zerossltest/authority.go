// Package zerossltest is a stand-in for ZeroSSL's API, for tests and benchmarks. A Detour
// leads certmagic's issuer to it.
package zerossltest

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// authority fetches the validation file once and signs at once.
type authority struct {
	root    *x509.Certificate
	rootPEM string
	key     crypto.Signer
	fetch   *http.Client
	delay   time.Duration

	mu     sync.Mutex
	orders map[string]*order
}

type order struct {
	names       []string // the certificate's, as they were requested besides the CSR
	csr         *x509.CertificateRequest
	certificate string // PEM
}

// lifetime is that of the certificates.
const lifetime = 90 * 24 * time.Hour

// New returns the API. Validation files are fetched from the port of 127.0.0.1, and each
// answer is delayed.
func New(httpPort int, delay time.Duration) (http.Handler, error) {
	a, err := newAuthority(httpPort)
	if err != nil {
		return nil, err
	}
	a.delay = delay
	mux := http.NewServeMux()
	mux.HandleFunc("POST /certificates", a.answering(a.create))
	mux.HandleFunc("POST /certificates/{id}/challenges", a.answering(a.verify))
	mux.HandleFunc("GET /certificates/{id}/download/return", a.answering(a.download))
	return mux, nil
}

func newAuthority(httpPort int) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Stand-in Root"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(10 * lifetime),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	target := net.JoinHostPort("127.0.0.1", strconv.Itoa(httpPort))
	return &authority{
		root: root, rootPEM: encode("CERTIFICATE", der), key: key, orders: make(map[string]*order),
		fetch: &http.Client{
			Timeout: 30 * time.Second,
			Transport: &http.Transport{
				DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
					return new(net.Dialer).DialContext(ctx, network, target)
				},
				DisableKeepAlives: true,
			},
		},
	}, nil
}

func encode(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// answering writes what a call returns. The API has no status codes for errors.
func (a *authority) answering(call func(r *http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		answer, err := call(r)
		if err != nil {
			answer = map[string]any{"success": false, "error": map[string]any{"code": 1, "type": err.Error()}}
		}
		if !a.wait(r.Context()) {
			return // the client has gone away
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answer) // the client will complain
	}
}

// wait waits for the delay, unless the client goes away.
func (a *authority) wait(ctx context.Context) bool {
	if a.delay == 0 {
		return true
	}
	timer := time.NewTimer(a.delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func validationFile(id, name string) (url string, content []string) {
	return "http://" + name + "/.well-known/pki-validation/" + strings.ToUpper(id) + ".txt", []string{id, "comodoca.com", "stand-in"}
}

func (a *authority) create(r *http.Request) (any, error) {
	var request struct {
		Domains string `json:"certificate_domains"`
		CSR     string `json:"certificate_csr"`
	}
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		return nil, err
	}
	block, _ := pem.Decode([]byte(request.CSR))
	if block == nil {
		return nil, errors.New("the CSR is not PEM")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, err
	}
	id, err := newID()
	if err != nil {
		return nil, err
	}
	if request.Domains == "" {
		return nil, errors.New("missing_certificate_domains")
	}
	names := strings.Split(request.Domains, ",")
	methods := make(map[string]any)
	for _, name := range names {
		url, content := validationFile(id, name)
		methods[name] = map[string]any{"file_validation_url_http": url, "file_validation_content": content}
	}
	a.mu.Lock()
	a.orders[id] = &order{names: names, csr: csr}
	a.mu.Unlock()
	return map[string]any{"id": id, "status": "draft", "validation": map[string]any{"other_methods": methods}}, nil
}

func newID() (string, error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", b), nil
}

func (a *authority) order(r *http.Request) (string, *order, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	id := r.PathValue("id")
	o := a.orders[id]
	if o == nil {
		return id, nil, errors.New("certificate_not_found")
	}
	return id, o, nil
}

func (a *authority) verify(r *http.Request) (any, error) {
	id, o, err := a.order(r)
	if err != nil {
		return nil, err
	}
	for _, name := range o.names {
		url, content := validationFile(id, name)
		if err := a.check(r.Context(), url, strings.Join(content, "\n")); err != nil {
			return nil, err
		}
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, DNSNames: o.names, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(lifetime),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, a.root, o.csr.PublicKey, a.key)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	o.certificate = encode("CERTIFICATE", der)
	a.mu.Unlock()
	return map[string]any{"id": id, "status": "issued"}, nil
}

// check fetches a validation file.
func (a *authority) check(ctx context.Context, url, want string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil) //nolint:gosec // whatever the name, it dials this machine
	if err != nil {
		return err
	}
	answer, err := a.fetch.Do(request) //nolint:gosec // as above
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 4096))
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK || string(body) != want {
		return fmt.Errorf("domain_control_validation_failed: %s: %s", url, answer.Status)
	}
	return nil
}

func (a *authority) download(r *http.Request) (any, error) {
	_, o, err := a.order(r)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if o.certificate == "" {
		return nil, errors.New("certificate_not_ready")
	}
	return map[string]any{"certificate.crt": o.certificate, "ca_bundle.crt": a.rootPEM}, nil
}
