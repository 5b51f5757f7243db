package task

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"drover/driver/image"
)

const (
	// collectEvery is how often it is looked at whether images can be removed.
	collectEvery = time.Minute
	// renewEvery is how often the images of the prefetch list are asked for again, and prefetchBackoff the first wait
	// after one that failed, which doubles up to an hour.
	renewEvery      = 6 * time.Hour
	prefetchBackoff = 10 * time.Second
	prefetchLongest = time.Hour
	// prefetchOwner begins the names of the leases of images on the prefetch list.
	prefetchOwner = "prefetch-"
)

// Maintain keeps the image store in order until the plugin's life ends: it removes what nobody uses, and brings what is
// on the prefetch list. It returns at once; a second call does nothing.
func (m *Manager) Maintain() {
	m.maintain.Do(func() {
		go m.upkeep()
	})
}

func (m *Manager) upkeep() {
	if err := m.prepare(); err != nil {
		m.log.Warn("images are not looked after", "error", err)
		return
	}
	m.dropPrefetched()
	for _, ref := range m.node.Pull.Prefetch {
		go m.prefetch(ref)
	}
	ticker := time.NewTicker(collectEvery)
	defer ticker.Stop()
	for {
		if _, err := m.store.Collect(); err != nil {
			m.log.Warn("unused images cannot be removed", "error", err)
		}
		select {
		case <-ticker.C:
		case <-m.life.Done():
			return
		}
	}
}

// prefetchName is the owner of the lease of an image on the prefetch list.
func prefetchName(ref string) string {
	sum := sha256.Sum256([]byte(ref))
	return prefetchOwner + hex.EncodeToString(sum[:16])
}

// dropPrefetched ends the leases of images that are on the list no more.
func (m *Manager) dropPrefetched() {
	owners, err := m.store.Owners()
	if err != nil {
		m.log.Warn("cannot read who uses images", "error", err)
	}
	for _, owner := range owners {
		if strings.HasPrefix(owner, prefetchOwner) && !m.holdsLease(owner) {
			if err := m.store.Release(owner); err != nil {
				m.log.Warn("an image that is not to be kept any more is still leased", "error", err)
			}
		}
	}
}

// prefetch brings one image, and again from time to time.
func (m *Manager) prefetch(ref string) {
	wait := prefetchBackoff
	for {
		err := m.prefetchOnce(ref)
		pause := renewEvery
		if err != nil {
			m.log.Warn("an image of the prefetch list could not be pulled", "image", ref, "error", err, "again_in", wait)
			pause, wait = wait, min(2*wait, prefetchLongest)
		} else {
			wait = prefetchBackoff
		}
		select {
		case <-time.After(pause):
		case <-m.life.Done():
			return
		}
	}
}

func (m *Manager) prefetchOnce(ref string) error {
	ctx, cancel := context.WithTimeoutCause(m.life, m.node.PullTimeout, errPullTimeout)
	defer cancel()
	img, err := m.store.Pull(ctx, image.Request{Ref: ref, Login: m.login, Owner: prefetchName(ref)}, nil)
	if err == nil && img.Times.Pull > 0 {
		m.log.Info("prefetched an image", "image", ref, "digest", img.Digest)
	}
	return err
}

// Usage is what the image store holds.
func (m *Manager) Usage() (image.Usage, error) {
	if err := m.prepare(); err != nil {
		return image.Usage{}, fmt.Errorf("image store: %w", err)
	}
	return m.store.Usage()
}

// holdsLease says whether the owner of a lease is still there: a task's directory, or an image on the prefetch list.
func (m *Manager) holdsLease(owner string) bool {
	if strings.HasPrefix(owner, prefetchOwner) {
		return slices.ContainsFunc(m.node.Pull.Prefetch, func(ref string) bool { return prefetchName(ref) == owner })
	}
	_, err := os.Lstat(m.dir(owner))
	return !errors.Is(err, fs.ErrNotExist)
}
