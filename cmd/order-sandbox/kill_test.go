package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-commercial/caddy-commercial/internal/sandboxca/hostile"
)

// process is the program in a process of its own.
type process struct {
	*running
	cmd *exec.Cmd
}

func launch(t *testing.T, dir string) *process {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), asProgram+"=--calm --listen 127.0.0.1:0 --control 127.0.0.1:0 --check-interval 0s --dir "+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{running: new(running), cmd: cmd}
	lines := bufio.NewScanner(out)
	for !strings.Contains(p.printed, "behaviour") && lines.Scan() {
		p.printed += lines.Text() + "\n"
	}
	p.api = p.line(t, `(?m)^howssl +(http://[^/\s]+)`)
	p.control = p.line(t, `(?m)^control +(\S+)`)
	return p
}

// kill kills the process, giving it no chance to clean up.
func (p *process) kill(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = p.cmd.Wait() // it was killed
}

// howssl makes a HowSSL call and returns a string from the answer's data.
func (p *process) howssl(call, field string, form url.Values) (string, error) {
	form.Set("token", "sandbox")
	resp, err := http.PostForm(p.api+"/Home/Order/"+call, form)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var answer struct {
		Status bool
		Msg    string
		Data   map[string]any
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return "", err
	}
	if !answer.Status {
		return "", fmt.Errorf("%s: %s", call, answer.Msg)
	}
	text, _ := answer.Data[field].(string)
	return text, nil
}

// buy creates an order and pays for it.
func (p *process) buy(name string) (id string, err error) {
	checkID, err := p.howssl("createOrder", "check_id", url.Values{
		"product_code": {"comodo-positivessl"}, "validity_period": {"12"}, "auto_info": {"1"},
		"domains": {name}, "check_way": {"FILE"},
	})
	if err != nil {
		return "", err
	}
	return p.howssl("commitOrder", "order_id", url.Values{"check_id": {checkID}})
}

// TestKilled kills the program while four customers buy, three times. Afterwards, every
// order that was answered is there, and there is no order without its charge and no
// charge without its order.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	var mu sync.Mutex
	var bought []string
	for round := range 3 {
		p := launch(t, dir)
		enough, answered := make(chan struct{}), 0
		var customers sync.WaitGroup
		for customer := range 4 {
			customers.Go(func() {
				for i := 0; ; i++ {
					id, err := p.buy(fmt.Sprintf("n%d-%d-%d.example.com", round, customer, i))
					if err != nil {
						return // it is dead
					}
					mu.Lock()
					bought = append(bought, id)
					if answered++; answered == 20 {
						close(enough)
					}
					mu.Unlock()
				}
			})
		}
		<-enough
		p.kill(t)
		customers.Wait()
	}
	http.DefaultClient.CloseIdleConnections()

	p := launch(t, dir)
	defer p.kill(t)
	var orders []hostile.OrderInfo
	var charges []hostile.Charge
	for path, list := range map[string]any{"/orders": &orders, "/charges": &charges} {
		if err := json.Unmarshal([]byte(strings.TrimPrefix(p.call(t, "GET", path, ""), "200 ")), list); err != nil {
			t.Fatal(err)
		}
	}
	if len(orders) != len(charges) || len(orders) < len(bought) || len(orders) > len(bought)+12 {
		t.Errorf("%d orders and %d charges, of which %d were answered", len(orders), len(charges), len(bought))
	}
	for i, o := range orders {
		if charges[i].OrderID != o.ID || charges[i].Reference != o.RefID {
			t.Errorf("order %s has the charge %+v", o.ID, charges[i])
		}
	}
	for _, id := range bought {
		if !slices.ContainsFunc(orders, func(o hostile.OrderInfo) bool { return o.ID == id }) {
			t.Errorf("order %s is lost", id)
		}
	}
}
