package dcv

import (
	"hash/maphash"
	"sync"
)

// liveFiles are the files of this process by host. Hosts are spread over many
// maps, so that what one order does neither waits for nor costs more because of
// the thousands of others.
type liveFiles struct {
	seed   maphash.Seed
	shards [64]liveShard
}

type liveShard struct {
	mu    sync.RWMutex
	hosts map[string][]*file // the lists are never changed, only replaced
}

func newLiveFiles() *liveFiles {
	l := &liveFiles{seed: maphash.MakeSeed()}
	for i := range l.shards {
		l.shards[i].hosts = make(map[string][]*file)
	}
	return l
}

func (l *liveFiles) shard(host string) *liveShard {
	return &l.shards[maphash.String(l.seed, host)%uint64(len(l.shards))]
}

// of returns the host's files in the order in which they are tried.
func (l *liveFiles) of(host string) []*file {
	shard := l.shard(host)
	shard.mu.RLock()
	defer shard.mu.RUnlock()
	return shard.hosts[host]
}

// replace puts the files in the place of those that the ID has on the host by
// this name. With no files it removes them.
func (l *liveFiles) replace(host, id, name string, files []*file) {
	shard := l.shard(host)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if next := replaceFiles(shard.hosts[host], host, id, name, files); len(next) > 0 {
		shard.hosts[host] = next
	} else {
		delete(shard.hosts, host)
	}
}

// replaceFiles returns a new list in which the files replace those of the same ID
// and name and stand before all others of their kind. Files that name the host
// are one kind, those that name its twin the other, which comes second.
func replaceFiles(old []*file, host, id, name string, files []*file) []*file {
	next := make([]*file, 0, len(old)+len(files))
	for _, own := range []bool{true, false} {
		if own == (name == host) {
			next = append(next, files...)
		}
		for _, f := range old {
			if own == (f.name == host) && (f.id != id || f.name != name) {
				next = append(next, f)
			}
		}
	}
	return next
}
