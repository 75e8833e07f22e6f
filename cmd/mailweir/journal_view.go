package main

import (
	"maps"
	"slices"

	"github.com/mailweir/mailweir/proxy"
	"github.com/mailweir/mailweir/proxy/journal"
)

// What verify --json and dump print. Names stay; new ones may come.

type reportView struct {
	Sound    bool             `json:"sound"`
	Bytes    int64            `json:"bytes"`
	Read     int64            `json:"read_bytes"`
	Torn     bool             `json:"torn"`
	Segments segmentsView     `json:"segments"`
	Records  map[string]int64 `json:"records"`
	Messages messagesView     `json:"messages"`
	Bodies   filesView        `json:"bodies"`
	Orphans  filesView        `json:"orphans"`
	Spare    filesView        `json:"spare"`
	Made     filesView        `json:"unfinished"`
	Kept     filesView        `json:"quarantined"`
	Foreign  filesView        `json:"foreign"`
	Damaged  int              `json:"damaged"`
	Damage   []damageView     `json:"damage"`
}

type segmentsView struct {
	Sealed   int `json:"sealed"`
	Unsealed int `json:"unsealed"`
	Empty    int `json:"empty"`
	Broken   int `json:"broken"`
	Freed    int `json:"freed"`
}

type messagesView struct {
	Waiting int `json:"waiting"`
	Dead    int `json:"dead"`
	Ended   int `json:"ended"`
}

type filesView struct {
	Count int      `json:"count"`
	Bytes int64    `json:"bytes"`
	Names []string `json:"names,omitempty"`
}

func viewFiles(f journal.Files) filesView { return filesView{f.Count, f.Bytes, f.Names} }

type damageView struct {
	File   string     `json:"file"`
	Offset int64      `json:"offset"`
	Length int64      `json:"length"`
	Fault  string     `json:"fault"`
	Harm   string     `json:"harm"`
	Lost   []lostView `json:"lost,omitempty"`
	More   int        `json:"more,omitempty"`
}

type lostView struct {
	Type     string `json:"type"`
	ID       string `json:"id,omitempty"`
	Certain  bool   `json:"certain"`
	Harm     string `json:"harm"`
	Envelope any    `json:"envelope,omitempty"`
}

var harmNames = map[journal.Harm]string{
	journal.NoHarm: "none", journal.BlobLost: "learnt_lost", journal.NoteLost: "note_lost", journal.EndLost: "sent_again",
	journal.ContentLost: "not_deliverable", journal.MessageLost: "message_lost", journal.Unknown: "unknown",
}

func viewReport(r journal.Report) reportView {
	v := reportView{
		Sound: r.Damaged == 0, Bytes: r.Bytes, Read: r.Read + r.BodyBytes, Torn: r.Torn,
		Segments: segmentsView{r.Sealed, r.Unsealed, r.Reserves, r.Broken, r.Freed},
		Records:  make(map[string]int64), Messages: messagesView{r.Live, r.Dead, r.Ended},
		Bodies: filesView{Count: r.Bodies, Bytes: r.BodyBytes}, Orphans: viewFiles(r.Orphans), Spare: viewFiles(r.Spare),
		Made: viewFiles(r.Unfinished), Kept: viewFiles(r.Quarantined), Foreign: viewFiles(r.Foreign),
		Damaged: r.Damaged, Damage: []damageView{},
	}
	for _, t := range slices.Sorted(maps.Keys(r.Records)) {
		v.Records[typeText(t)] = r.Records[t]
	}
	for _, d := range r.Damage {
		v.Damage = append(v.Damage, viewDamage(d))
	}
	return v
}

func viewDamage(d journal.Damage) damageView {
	v := damageView{File: d.File, Offset: d.Offset, Length: d.Length, Fault: string(d.Fault), Harm: harmNames[d.Harm], More: d.More}
	for _, x := range d.Lost {
		one := lostView{Type: typeText(x.Type), Certain: x.Certain, Harm: harmNames[x.Harm]}
		if x.ID != 0 {
			one.ID = idText(x.ID)
		}
		if env, err := proxy.Describe(journal.Record{Type: journal.Accepted, Payload: x.Meta}); err == nil && x.Meta != nil {
			one.Envelope = env
		}
		v.Lost = append(v.Lost, one)
	}
	return v
}

type recordView struct {
	Segment uint64 `json:"segment"`
	Offset  int64  `json:"offset"`
	Type    string `json:"type"`
	ID      string `json:"id,omitempty"`
	Whole   bool   `json:"whole,omitempty"`   // it supersedes all state records of the message before it
	Name    string `json:"name,omitempty"`    // of a blob
	Record  any    `json:"record,omitempty"`  // what the payload says
	Payload []byte `json:"payload,omitempty"` // base64, where that is not known
	Body    *int64 `json:"body_bytes,omitempty"`
	File    string `json:"body_file,omitempty"`
	Fault   string `json:"fault,omitempty"` // the payload is sound and yet not understood
}

func viewRecord(f journal.Found) recordView {
	v := recordView{Segment: f.Segment, Offset: f.Offset, Type: typeText(f.Type), Whole: f.Whole, Name: f.Name, File: f.File}
	if f.ID != 0 {
		v.ID = idText(f.ID)
	}
	if f.Type == journal.Accepted {
		v.Body = &f.Size
	}
	var err error
	if v.Record, err = proxy.Describe(f.Record); err != nil {
		v.Fault = err.Error()
	}
	if v.Record == nil {
		v.Payload = f.Payload
	}
	return v
}
