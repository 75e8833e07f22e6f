package journal

import (
	"cmp"
	"slices"
	"strings"
)

// Report is what an inspection found. Numbers of messages are those that recovery would find.
type Report struct {
	Bytes int64 // of all files
	Read  int64 // bytes of segments that were read
	Torn  bool  // at the end stands a write that is not finished: it never counted, or is under way

	Sealed   int // segments with a footer
	Unsealed int // segments without one
	Reserves int // segments without a record
	Broken   int // segments without a usable header
	Freed    int // segments that went while they were read

	Records map[Type]int64

	Live  int // messages that have not ended, Dead ones not counted
	Dead  int
	Ended int // messages that have ended and of which something is left

	Bodies    int   // files of bodies that were read and are sound
	BodyBytes int64 // of content in them

	Orphans     Files // bodies that no message wants: being received at this moment, or about to be removed
	Spare       Files
	Unfinished  Files // segments that were being made
	Quarantined Files // kept for a human
	Foreign     Files // that mailweir did not make

	Damaged int      // places
	Damage  []Damage // the first of them, in order of files and offsets
}

// Files are files of one kind.
type Files struct {
	Count int
	Bytes int64
	Names []string // the first of them
}

func (f *Files) add(info FileInfo) {
	f.Count++
	f.Bytes += info.Size
	if len(f.Names) < maxNames {
		f.Names = append(f.Names, info.Name)
	}
}

// Damage is one place that is not as it was written.
type Damage struct {
	File   string
	Offset int64
	Length int64 // bytes; of the whole frame, if one was harmed
	Fault  Fault
	Harm   Harm // the worst of Lost
	Lost   []Lost
	More   int // records beyond those in Lost
}

// Fault says what is wrong with a place.
type Fault string

// What can be wrong.
const (
	Checksum   Fault = "checksum does not match"
	Unreadable Fault = "the disk refuses to read it"
	Malformed  Fault = "record is malformed"
	NoHeader   Fault = "segment has no usable header"
	HeaderCopy Fault = "one of the two headers is damaged"
	Short      Fault = "file ends before its records do"
	Footer     Fault = "footer is damaged"
	BodyGone   Fault = "file of the body is missing"
	BodyLength Fault = "file of the body has the wrong length"
)

// Lost is a record that stood in a damaged place.
type Lost struct {
	Type        Type
	ID          uint64
	Certain     bool   // Type and ID are covered by a checksum that matches
	Meta        []byte // of an Accepted, its first 64 KiB; nil if not known
	MetaCertain bool   // likewise
	Harm        Harm
}

const maxMetaKept = 64 << 10

// Harm says what a damaged place means, in ascending order.
type Harm uint8

// What damage can mean.
const (
	NoHarm      Harm = iota // it held nothing that still counts, or that stands nowhere else
	BlobLost                // something that was learnt is forgotten
	NoteLost                // something noted about a message is forgotten: it may be tried too soon, or sent again
	EndLost                 // a message that has ended will be sent again
	ContentLost             // a message is known, and cannot be delivered
	MessageLost             // a message is forgotten at the next start, and cannot be delivered before
	Unknown                 // what stood there is not known
)

// place is a damage before it is known what that means.
type place struct {
	Damage
	segment uint64
	footer  bool // what stood there counts all the same: it stands in the footer
	rest    bool // more stood there than is named
}

func (i *inspector) damaged(l *look, p place) {
	p.File, p.segment = l.s.name, l.s.id
	i.keep(p)
}

func (i *inspector) keep(p place) {
	i.report.Damaged++
	if len(i.places) < maxPlaces {
		i.places = append(i.places, p)
	}
}

// conclude is called when everything was read.
func (i *inspector) conclude() error {
	if err := i.settleSuspects(); err != nil {
		return err
	}
	i.countSegments()
	i.countMessages()
	i.countFiles()
	for n := range i.places {
		p := &i.places[n]
		for k := range p.Lost {
			p.Lost[k].Harm = i.harm(p, p.Lost[k])
			p.Harm = max(p.Harm, p.Lost[k].Harm)
		}
		if p.silent() {
			p.Harm = Unknown
		}
		i.report.Damage = append(i.report.Damage, p.Damage)
	}
	slices.SortStableFunc(i.report.Damage, func(a, b Damage) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Offset, b.Offset))
	})
	i.report.Torn = i.j.stats.Torn > 0
	return nil
}

// silent says that of something that stood there nothing is known.
func (p *place) silent() bool {
	switch p.Fault {
	case NoHeader, Short:
		return true
	case HeaderCopy, Footer:
		return false
	}
	return len(p.Lost) == 0 && !p.footer || p.rest
}

func (i *inspector) harm(p *place, lost Lost) Harm {
	m := i.messages[lost.ID]
	switch {
	case !lost.Certain:
		return Unknown
	case lost.Type >= firstControl:
		return NoHarm
	case lost.Type == Blob && (p.footer || i.newestTop > p.segment):
		return NoHarm
	case lost.Type == Blob:
		return BlobLost
	case lost.Type == Accepted && m.state == messageUnseen && !p.footer:
		return MessageLost
	case lost.Type == Accepted && m.alive() && uint64(m.segment) == p.segment:
		return ContentLost
	case lost.Type == Accepted || p.footer || !m.alive():
		return NoHarm
	case lost.Type.ends():
		return EndLost
	}
	return NoteLost
}

func (i *inspector) countSegments() {
	for _, l := range i.looks {
		switch {
		case l.gone:
			i.report.Freed++
		case l.s.broken:
		case l.s.footer:
			i.report.Sealed++
		case l.read == segmentStart && l.last:
			i.report.Reserves++
		default:
			i.report.Unsealed++
		}
	}
}

// countMessages leaves out those whose segment went meanwhile: they had ended by then, or stand elsewhere too.
func (i *inspector) countMessages() {
	gone := make(map[uint32]bool)
	for _, l := range i.looks {
		gone[uint32(l.s.id)] = l.gone
	}
	for id, m := range i.messages {
		if m.alive() && gone[m.segment] {
			m.state = messageOver
			i.messages[id] = m
		}
		switch m.state {
		case messageLive:
			i.report.Live++
		case messageDead:
			i.report.Dead++
		case messageOver:
			i.report.Ended++
		}
	}
}

func (i *inspector) countFiles() {
	r := &i.report
	for _, f := range i.latest {
		r.Bytes += f.Size
		switch kindOf(f.Name) {
		case bodyFile:
			id, _ := bodyID(f.Name)
			_, early := i.first[f.Name]
			if m := i.messages[id]; early && !m.alive() {
				r.Orphans.add(f)
			}
		case spareFile:
			r.Spare.add(f)
		case unfinishedFile:
			r.Unfinished.add(f)
		case quarantinedFile:
			r.Quarantined.add(f)
		case foreignFile:
			r.Foreign.add(f)
		}
	}
}

type fileKind uint8

const (
	foreignFile fileKind = iota
	segmentFile
	bodyFile
	spareFile
	unfinishedFile
	quarantinedFile
)

func kindOf(name string) fileKind {
	if _, ok := segmentID(name); ok {
		return segmentFile
	}
	if _, ok := bodyID(name); ok {
		return bodyFile
	}
	switch {
	case name == spareName:
		return spareFile
	case isUnfinished(name):
		return unfinishedFile
	case strings.HasSuffix(name, quarantineSuffix):
		return quarantinedFile
	}
	return foreignFile
}

// Name is the type in one word, "" for one that this version does not know.
func (t Type) Name() string { return typeNames[t] }

var typeNames = map[Type]string{
	Accepted: "accepted", Verdict: "verdict", Attempt: "attempt", Started: "started", Hold: "hold", Settled: "settled", Dead: "dead",
	Void: "void", Blob: "blob", typeFooter: "footer", typeTrailer: "trailer", typeSeal: "seal", typeBatch: "batch",
}

// Control says that records of this type are the journal's own, and never visited.
func (t Type) Control() bool { return t >= firstControl }
