package message

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"
)

// ID is a message's queue ID: the microsecond in which the message was begun, shifted left by
// idShift bits, plus a counter. IDs of one process are unique and ascend; 0 is no ID.
type ID uint64

const (
	idShift  = 10
	idLength = 13 // base32 digits in 64 bits
	idDigits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
)

// String returns the 13 digits of the ID in Crockford's base32; texts sort as the IDs do.
func (id ID) String() string {
	var b [idLength]byte
	for i := idLength - 1; i >= 0; i-- {
		b[i] = idDigits[id&31]
		id >>= 5
	}
	return string(b[:])
}

var errID = errors.New("a queue ID has 13 letters and digits, as in the log line \"accepted\"")

// ParseID reads what String wrote; lower case is accepted.
func ParseID(s string) (ID, error) {
	up := strings.ToUpper(s)
	if len(up) != idLength || up[0] > 'F' { // 13 digits have 65 bits
		return 0, fmt.Errorf("message: %q: %w", s, errID)
	}
	var id ID
	for i := range len(up) {
		v := strings.IndexByte(idDigits, up[i])
		if v < 0 {
			return 0, fmt.Errorf("message: %q: %w", s, errID)
		}
		id = id<<5 | ID(v)
	}
	return id, nil
}

// IDs hands out queue IDs. The zero value is ready; it is safe for concurrent use.
type IDs struct{ last atomic.Uint64 }

// Next returns an ID greater than every one handed out or Seen before, also when the clock stands
// still or goes back.
func (s *IDs) Next(now time.Time) ID {
	fresh := uint64(now.UnixMicro()) << idShift
	for {
		last := s.last.Load()
		next := max(fresh, last+1)
		if s.last.CompareAndSwap(last, next) {
			return ID(next)
		}
	}
}

// Seen makes every later ID greater than id; recovery calls it for each message it finds.
func (s *IDs) Seen(id ID) {
	for {
		last := s.last.Load()
		if uint64(id) <= last || s.last.CompareAndSwap(last, uint64(id)) {
			return
		}
	}
}
