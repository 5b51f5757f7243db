package task

import (
	"os"
	"path/filepath"
)

// A container's root stores its files in the allocation's directories as the host's root, so that tasks with and without
// user namespaces can share them, and may set their setuid bits. That is harmless as long as the host's users cannot get
// there, which Nomad leaves to the operator.

// exposed says whether every user of the host can enter a directory.
func exposed(dir string) bool {
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil || info.Mode()&0o001 == 0 {
			return false
		}
	}
	return true
}

// warnExposed tells the operator, once for each process.
func (s *start) warnExposed() {
	if s.facts.info != nil || !exposed(s.facts.req.AllocDir) {
		return
	}
	if _, again := s.m.warned.LoadOrStore("alloc_dir", true); again {
		return
	}
	s.m.log.Warn("every user of this node can enter the allocations' directories, where containers can leave setuid programs: "+
		"close Nomad's data_dir (mode 0700)", "alloc_dir", s.facts.req.AllocDir)
}
