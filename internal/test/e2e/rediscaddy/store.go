package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"
)

// store is a storage of certmagic in Redis. Each key has a list of versions there, of which
// a store sees the newest that it has written itself or that is old enough; if nothing is
// shown late, there is never more than one. Beside them is an index of all keys.
//
//	v/<key>    its versions, oldest first: "<microseconds> <store> <1 if deleted> <value>"
//	index      all keys, as a sorted set
//	l/<name>   a lock: the random token of its holder, for as long as the lease lasts
type store struct {
	name   string // random, after the number of the process, by which a test knows its locks
	db     *redis.Client
	late   time.Duration
	logger *zap.Logger

	mu   sync.Mutex
	held map[string]*lease // by name of the lock
}

func newStore(addr string, late time.Duration, logger *zap.Logger) *store {
	db := redis.NewClient(&redis.Options{Addr: addr, ContextTimeoutEnabled: true})
	return &store{name: fmt.Sprintf("%d-%s", os.Getpid(), rand.Text()), db: db, late: late, logger: logger, held: make(map[string]*lease)}
}

func (s *store) close() error { return s.db.Close() }

// All scripts begin with this. KEYS[1] is a key of certmagic; ARGV[1] and ARGV[2] are the
// name of the store and after how many microseconds it sees what others write.
const prelude = `
local key, me, late = KEYS[1], ARGV[1], tonumber(ARGV[2])
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]

local function parse(version)
	local _, head, at, by, gone = string.find(version, '^(%d+) (%S+) ([01]) ')
	return tonumber(at), by, gone == '1', head
end

-- seen is the value and the time of what this store sees at a key, or nil.
local function seen(k)
	local versions = redis.call('LRANGE', 'v/' .. k, 0, -1)
	for i = #versions, 1, -1 do
		local at, by, gone, head = parse(versions[i])
		if by == me or now - at >= late then
			if gone then return nil end
			return string.sub(versions[i], head + 1), at
		end
	end
end

-- below lists the keys that this store sees below another.
local function below(k)
	local from, to = '-', '+'
	if k ~= '' then from, to = '[' .. k .. '/', '(' .. k .. '0' end -- 0 follows /
	local list = {}
	for _, other in ipairs(redis.call('ZRANGEBYLEX', 'index', from, to)) do
		if seen(other) then list[#list + 1] = other end
	end
	return list
end

-- put adds a version of a key, and drops those that nobody sees any more.
local function put(k, gone, value)
	local list = 'v/' .. k
	if gone == 1 and redis.call('EXISTS', list) == 0 then return end
	redis.call('RPUSH', list, string.format('%.0f %s %d ', now, me, gone) .. value)
	redis.call('ZADD', 'index', 0, k)
	while true do
		local second = redis.call('LINDEX', list, 1)
		if not second or now - parse(second) < late then break end
		redis.call('LPOP', list)
	end
	if late == 0 and gone == 1 then
		redis.call('DEL', list)
		redis.call('ZREM', 'index', k)
	end
end
`

var (
	storeScript = redis.NewScript(prelude + `put(key, 0, ARGV[3])`)
	loadScript  = redis.NewScript(prelude + `return seen(key)`)
	listScript  = redis.NewScript(prelude + `return below(key)`)
	// deleteScript deletes what is at a key and below it.
	deleteScript = redis.NewScript(prelude + `
put(key, 1, '')
for _, k in ipairs(below(key)) do put(k, 1, '') end
`)
	// statScript returns the time and the size of a value, or the time 0 if there is
	// something below the key.
	statScript = redis.NewScript(prelude + `
local value, at = seen(key)
if value then return {string.format('%.0f', at), string.format('%d', #value)} end
if #below(key) > 0 then return {'0', '0'} end
`)
)

func (s *store) run(ctx context.Context, script *redis.Script, key string, args ...any) *redis.Cmd {
	cmd := script.Run(ctx, s.db, []string{key}, append([]any{s.name, s.late.Microseconds()}, args...)...)
	if errors.Is(cmd.Err(), redis.Nil) {
		cmd.SetErr(fs.ErrNotExist)
	}
	return cmd
}

// Store implements certmagic.Storage.
func (s *store) Store(ctx context.Context, key string, value []byte) error {
	return done(s.run(ctx, storeScript, key, value))
}

// Delete implements certmagic.Storage.
func (s *store) Delete(ctx context.Context, key string) error {
	return done(s.run(ctx, deleteScript, key))
}

// done is the error of a script that returns nothing.
func done(cmd *redis.Cmd) error {
	if err := cmd.Err(); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Load implements certmagic.Storage.
func (s *store) Load(ctx context.Context, key string) ([]byte, error) {
	text, err := s.run(ctx, loadScript, key).Text()
	if err != nil {
		return nil, fmt.Errorf("loading %s: %w", key, err)
	}
	return []byte(text), nil
}

// Exists implements certmagic.Storage.
func (s *store) Exists(ctx context.Context, key string) bool {
	_, err := s.Stat(ctx, key)
	return err == nil
}

// Stat implements certmagic.Storage.
func (s *store) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	facts, err := s.run(ctx, statScript, key).Int64Slice()
	if err == nil && len(facts) != 2 {
		err = fmt.Errorf("unexpected answer %v", facts)
	}
	if err != nil {
		return certmagic.KeyInfo{}, fmt.Errorf("getting the metadata of %s: %w", key, err)
	}
	if facts[0] == 0 {
		return certmagic.KeyInfo{Key: key}, nil
	}
	return certmagic.KeyInfo{Key: key, Modified: time.UnixMicro(facts[0]), Size: facts[1], IsTerminal: true}, nil
}

// List implements certmagic.Storage. As in other storages, folders are listed only if the
// listing is not recursive.
func (s *store) List(ctx context.Context, prefix string, recursive bool) ([]string, error) {
	prefix = strings.Trim(prefix, "/")
	keys, err := s.run(ctx, listScript, prefix).StringSlice()
	if err == nil && len(keys) == 0 {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, fmt.Errorf("listing %q: %w", prefix, err)
	}
	if recursive {
		return keys, nil
	}
	start := 0
	if prefix != "" {
		start = len(prefix) + 1
	}
	for i, key := range keys {
		if child, _, folder := strings.Cut(key[start:], "/"); folder {
			keys[i] = key[:start+len(child)]
		}
	}
	return slices.Compact(keys), nil // they are sorted
}

// Interface guards
var (
	_ certmagic.Storage   = (*store)(nil)
	_ certmagic.TryLocker = (*store)(nil)
)
