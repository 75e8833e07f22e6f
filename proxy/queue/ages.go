package queue

import "time"

// ages tells since when the oldest ready delivery is ready. A delivery has no room for a time of its own, so this goes by how many
// came and how many went, as if they went in the order in which they came: where keys take turns it is a little off. The
// zero value is empty.
type ages struct {
	came, went int64
	marks      []ageMark // in order; the first is that of the oldest
}

// ageMark is a moment, and how many had come before it.
type ageMark struct {
	at     time.Time
	before int64
}

// maxMarks bounds the memory of ages. When it is reached every second mark goes, and what came at it counts as older.
const maxMarks = 64

func (a *ages) come(now time.Time) {
	if a.came == a.went {
		a.marks = a.marks[:0]
	}
	if n := len(a.marks); n == 0 || now.After(a.marks[n-1].at) {
		if n == maxMarks {
			a.thin()
		}
		a.marks = append(a.marks, ageMark{now, a.came})
	}
	a.came++
}

func (a *ages) thin() {
	for i := range maxMarks / 2 {
		a.marks[i] = a.marks[2*i]
	}
	a.marks = a.marks[:maxMarks/2]
}

// leave returns since when the one that goes had been ready.
func (a *ages) leave() time.Time {
	since := a.oldest()
	a.went++
	n := 0
	for n+1 < len(a.marks) && a.marks[n+1].before <= a.went {
		n++
	}
	a.marks = append(a.marks[:0], a.marks[n:]...)
	return since
}

// back takes in one that had left and was ready since then.
func (a *ages) back(since time.Time) {
	if a.came == a.went {
		a.marks = a.marks[:0]
	}
	a.went--
	if len(a.marks) == 0 || since.Before(a.marks[0].at) {
		if len(a.marks) == maxMarks {
			a.thin()
		}
		a.marks = append([]ageMark{{since, a.went}}, a.marks...)
	}
}

// oldest is the zero time when nothing is ready.
func (a *ages) oldest() time.Time {
	if a.came == a.went {
		return time.Time{}
	}
	return a.marks[0].at
}
