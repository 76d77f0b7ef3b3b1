package auth

import "strings"

// Owned reports whether any tenant may send from a domain in A-labels. Nothing is allocated: it is asked for each message.
func (d *Directory) Owned(domain string) bool { return d.state.owned(domain) }

// owned is owns for every tenant at once.
func (s *state) owned(domain string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for name, exact := domain, true; ; exact = false {
		for _, d := range s.domains[name] {
			if d.Usable() && (exact || !d.Exact) {
				return true
			}
		}
		if exact && len(s.assigned[name]) > 0 || !exact && len(s.assigned["*."+name]) > 0 {
			return true
		}
		dot := strings.IndexByte(name, '.')
		if dot < 0 {
			return false
		}
		name = name[dot+1:]
	}
}
