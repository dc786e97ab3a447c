// Package resolver is where the Caddys of the end-to-end tests look names up.
package resolver

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// Use gives this process a resolver of its own, which resolves the names of tests to the
// loopback address, and no others. RFC 6761, section 6.3, demands this for those below
// localhost, but not every system's resolver does it, and a test must not ask a name
// server.
func Use() {
	net.DefaultResolver = &net.Resolver{
		PreferGo: true,
		Dial: func(context.Context, string, string) (net.Conn, error) {
			client, server := net.Pipe()
			go answerDNS(server)
			return client, nil
		},
	}
}

// answerDNS speaks DNS over a stream, where each message follows its length (RFC
// 1035, section 4.2.2), until the other side hangs up.
func answerDNS(conn net.Conn) {
	defer conn.Close()
	for {
		var length uint16
		if binary.Read(conn, binary.BigEndian, &length) != nil {
			return
		}
		query := make([]byte, length)
		if _, err := io.ReadFull(conn, query); err != nil {
			return
		}
		answer, err := dnsAnswer(query)
		if err != nil {
			return
		}
		var framed bytes.Buffer
		framed.Write(binary.BigEndian.AppendUint16(nil, uint16(len(answer)))) //nolint:gosec // a DNS message is shorter than 64 KiB
		framed.Write(answer)
		if _, err := conn.Write(framed.Bytes()); err != nil {
			return
		}
	}
}

// local reports whether a name is one of the tests': those below localhost, and those
// below example.com where the name must look like a public one.
func local(name string) bool {
	return name == "localhost." || strings.HasSuffix(name, ".localhost.") || strings.HasSuffix(name, ".example.com.")
}

func dnsAnswer(query []byte) ([]byte, error) {
	var msg dnsmessage.Message
	if err := msg.Unpack(query); err != nil {
		return nil, err
	}
	reply := dnsmessage.Message{
		Header: dnsmessage.Header{
			ID: msg.ID, Response: true, RecursionDesired: msg.RecursionDesired, RecursionAvailable: true,
		},
		Questions: msg.Questions,
	}
	for _, q := range msg.Questions {
		name := strings.ToLower(q.Name.String())
		switch {
		case !local(name):
			reply.RCode = dnsmessage.RCodeNameError
		case q.Type == dnsmessage.TypeA:
			reply.Answers = append(reply.Answers, dnsmessage.Resource{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1},
				Body:   &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}},
			})
		}
	}
	return reply.Pack()
}
