package journal

import (
	"fmt"
	"io/fs"
	"slices"
)

// Inspection says what Inspect reads and who is told. It needs no lock: a running process may go on writing meanwhile.
type Inspection struct {
	Dir        string // a directory that must exist
	FS         FS     // nil: Dir on the operating system's file system; only List and Open for reading are called
	SkipBodies bool   // bodies in files of their own are not read

	// Visit is called for each sound record that is not the journal's own: segment after segment, the oldest first. A message
	// that was copied comes more than once, and so do records that were written again. An error of Visit ends Inspect. nil: nobody is told.
	Visit func(Found) error
	// Progress hears, now and then, how many bytes have been looked at, of how many. nil: nobody is told.
	Progress func(done, total int64)
}

// Bounds on what an inspection keeps, whatever it finds.
const (
	maxPlaces     = 1000    // damaged places that are described; further ones are counted
	maxLostNamed  = 16      // records of one damaged place that are named
	maxNames      = 100     // names of a kind of file
	footerLookups = 64      // how often one footer is searched for what stood in a damaged place
	maxSurveys    = 20      // how often the ends of all segments are looked for again, should they have changed
	progressStep  = 4 << 20 // bytes
)

// errNoJournal: a directory that exists and is something else.
var errNoJournal = fmt.Errorf("no journal here: %w", fs.ErrNotExist)

// Inspect reads every byte of a journal that counts, and says what is there and what is damaged. It opens files for reading
// only, creates nothing, and changes nothing. What a process writes, copies, frees or makes anew at the same time is never taken for
// damage. Memory: about 40 bytes a message, 100 more for one with a body file, and the largest record.
//
// ErrVersion when a later version wrote any of it; fs.ErrNotExist when there is no journal. Damage is no error.
func Inspect(in Inspection) (Report, error) {
	i := newInspector(in)
	if err := i.run(); err != nil {
		return Report{}, fmt.Errorf("journal: inspect %s: %w", in.Dir, err)
	}
	return i.report, nil
}

// inspector is one inspection under way. It looks at a directory three times. First at everything, oldest first. Then at what was
// written meanwhile, so that bodies are read only of messages that have not ended. Then, with the bodies read, once more: what
// seemed to be missing may belong to a message that had ended.
type inspector struct {
	in     Inspection
	j      *Journal // never started: it lends its file system and its ways to read
	ends   recovery // of the present survey: how the end of a segment is found is recovery's to say
	looks  []*look  // by segment
	first  map[string]int64
	latest []FileInfo

	messages  map[uint64]sighting
	bodies    map[uint64]bodyRef // of messages that have not ended
	suspects  []suspect
	newestTop uint64 // the newest segment whose opening was read: it repeats all blobs
	surveys   int
	places    []place
	passed    int64 // bytes of what is done with
	told      int64 // of them, what Progress has heard of
	total     int64
	report    Report
}

// sighting is what is known of a message: 8 bytes, since there may be millions.
type sighting struct {
	segment uint32 // of its latest Accepted record
	state   messageState
}

type messageState uint8

const (
	messageUnseen messageState = iota
	messageLive
	messageDead
	messageOver
)

func (m sighting) alive() bool { return m.state == messageLive || m.state == messageDead }

func newInspector(in Inspection) *inspector {
	return &inspector{
		in: in, j: newJournal(Config{Dir: in.Dir, FS: in.FS}.filled()),
		messages: make(map[uint64]sighting), bodies: make(map[uint64]bodyRef),
		report: Report{Records: make(map[Type]int64)},
	}
}

func (i *inspector) run() error {
	for _, step := range []func() error{i.round, i.round, i.readBodies, i.round} {
		if err := step(); err != nil {
			return err
		}
	}
	return i.conclude()
}

// round reads all segments that are new or may have grown.
func (i *inspector) round() error {
	if err := i.survey(); err != nil {
		return err
	}
	for _, l := range i.looks {
		if err := i.with(l, i.readSegment); err != nil {
			return err
		}
	}
	return nil
}

// survey looks at the directory, and at where segments end. All headers are read before any record is believed.
func (i *inspector) survey() error {
	if err := i.list(); err != nil {
		return err
	}
	if err := i.openSegments(); err != nil {
		return err
	}
	i.j.stats.Torn = 0
	i.ends = recovery{j: i.j, ends: make(map[uint64]int64)}
	for _, l := range slices.Backward(i.looks) {
		if err := i.with(l, i.measure); err != nil {
			return err
		}
	}
	return nil
}

func (i *inspector) list() (err error) {
	if i.latest, err = i.j.fs.List(); err != nil {
		return fmt.Errorf("list: %w", err)
	}
	if i.first != nil {
		return nil
	}
	i.first = make(map[string]int64)
	for _, f := range i.latest {
		switch kind := kindOf(f.Name); {
		case kind == foreignFile:
			continue
		case kind == segmentFile || kind == bodyFile && !i.in.SkipBodies:
			i.total += f.Size
		}
		i.first[f.Name] = f.Size
	}
	if len(i.first) == 0 {
		return errNoJournal
	}
	return nil
}

// progress tells how far the inspection is, with bytes of a file done with beside all that is behind it.
func (i *inspector) progress(bytes int64) {
	now := i.passed + bytes
	if i.in.Progress == nil || now < i.told+progressStep && now < i.total {
		return
	}
	i.told = now
	i.total = max(i.total, now) // it grows meanwhile
	i.in.Progress(now, i.total)
}
