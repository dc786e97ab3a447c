package ledger

import (
	"fmt"
	"path"
	"strings"

	"github.com/caddyserver/certmagic"
)

// Escape turns any text into a part of a storage key, such that different texts stay
// different. Letters, digits, hyphens and dots stay as they are, but for capitals, which
// certmagic folds, and for a dot that follows another or begins the text.
func Escape(text string) string {
	var b strings.Builder
	for i := range len(text) {
		c := text[i]
		plain := 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '.' && i > 0 && text[i-1] != '.'
		if plain {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "_%02x", c)
		}
	}
	return b.String()
}

// Prefix is where the ledger of a vendor's account is in storage.
func Prefix(vendor, account string) string {
	return path.Join(root, Escape(vendor), Escape(account))
}

const (
	root    = "commercial"
	entries = "entries"
	past    = "past"
	keys    = "keys"
	drafts  = "drafts"
	visits  = "visits"
	turns   = "watch.json"
	prices  = "prices.json"
)

// StorageIdentity tells storages apart across reloads of the configuration, which make a
// new value for the same place. Storages describe themselves for logs.
func StorageIdentity(storage certmagic.Storage) string {
	if s, ok := storage.(fmt.Stringer); ok {
		return fmt.Sprintf("%T %s", storage, s.String())
	}
	return fmt.Sprintf("%T %p", storage, storage)
}
