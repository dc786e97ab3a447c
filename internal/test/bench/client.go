package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

// client is an HTTP client for one keep-alive connection that does as little as possible,
// so that it is the server on the same machine that is measured. It knows the body to
// expect.
type client struct {
	conn      net.Conn
	request   []byte
	host, url string
	buf       [4096]byte
}

// answerTimeout is for a server that has stopped answering.
const answerTimeout = 30 * time.Second

func dial(ctx context.Context, addr string) (*client, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &client{conn: conn}, nil
}

func (c *client) close() { _ = c.conn.Close() }

// wantBody makes one request. Anything but a 200 whose body is this one is an error.
func (c *client) wantBody(host, url, body string) error {
	if c.host != host || c.url != url {
		c.host, c.url = host, url
		c.request = fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n", url, host)
	}
	if err := c.conn.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return err
	}
	if _, err := c.conn.Write(c.request); err != nil {
		return err
	}
	for n := 0; ; {
		read, err := c.conn.Read(c.buf[n:])
		n += read
		header, rest, complete := bytes.Cut(c.buf[:n], []byte("\r\n\r\n"))
		switch {
		case complete && !bytes.HasPrefix(header, []byte("HTTP/1.1 200 ")):
			return fmt.Errorf("GET %s%s: %q", host, url, header)
		case complete && string(rest) == body:
			return nil
		case complete && len(rest) >= len(body):
			return fmt.Errorf("GET %s%s: body %q, want %q", host, url, rest, body)
		case err != nil:
			return err
		case n == len(c.buf):
			return errors.New("the answer does not fit into the buffer")
		}
	}
}
