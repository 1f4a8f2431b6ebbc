package crowd

// Faults counts what was not as it must be, of all that came to some clients.
type Faults struct {
	Lost       int64 `json:"lost"`       // did not come in time
	Duplicated int64 `json:"duplicated"` // came again
	Misordered int64 `json:"misordered"` // came behind a later one
	Misrouted  int64 `json:"misrouted"`  // came to another client
}

// Add adds o to f.
func (f *Faults) Add(o Faults) {
	f.Lost += o.Lost
	f.Duplicated += o.Duplicated
	f.Misordered += o.Misordered
	f.Misrouted += o.Misrouted
}

// sequence is what one client has of messages that are numbered from 1.
type sequence struct {
	last    int64              // the highest number that came
	missing map[int64]struct{} // lower ones that did not; nil mostly
}

// take notes a message, and says whether it is new; what is wrong with it is added to f.
func (s *sequence) take(n int64, f *Faults) (fresh bool) {
	if n > s.last {
		for m := s.last + 1; m < n; m++ {
			if s.missing == nil {
				s.missing = map[int64]struct{}{}
			}
			s.missing[m] = struct{}{}
		}
		s.last = n
		return true
	}
	if _, ok := s.missing[n]; ok {
		delete(s.missing, n)
		f.Misordered++
		return true
	}
	f.Duplicated++
	return false
}
