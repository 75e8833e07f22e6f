package journal

import "errors"

// Type says what a record is about. Values are part of the format and never get a second meaning.
type Type uint8

const (
	Accepted Type = 1 // a message begins: meta and body; written by Draft.Commit only
	Verdict  Type = 2 // recipients of a live message have ended
	Attempt  Type = 3 // attempts made, and when the next is due
	Started  Type = 4 // a try begins
	Hold     Type = 5 // held or released
	Settled  Type = 6 // the message has ended; its bytes may go
	Dead     Type = 7 // the message has ended but is retained with its body until a Settled
	Void     Type = 8 // refused after all; ends the message as Settled does
	Blob     Type = 9 // named bytes; ID 0; payload: uvarint length of the name, name, bytes; never replayed

	// Types from firstControl on belong to the journal itself. They are never replayed, but for Restated, which stands in
	// no file.
	firstControl Type = 0xF0
	Restated     Type = 0xF1 // the state records of this message replayed so far are void: all that count follow
	typeFooter   Type = 0xFB // what stands in the segment, but for the bodies
	typeTrailer  Type = 0xFC // ends the footer, and the file
	typeSeal     Type = 0xFD // where earlier segments end; here all blobs begin anew
	typeBatch    Type = 0xFE // begins what one write(2) wrote
)

// ends says whether a record of this type ends its message.
func (t Type) ends() bool { return t == Settled || t == Void }

// linked says whether a record of this type has a link before its payload: see link.
func (t Type) linked() bool { return t != Accepted && t != Blob && t < firstControl }

// Record is one state record or, on replay, any record.
type Record struct {
	Type Type
	ID   uint64 // of the message; 0 for a Blob only
	// Payload is opaque to the journal. On replay of Accepted it is the meta given to Commit.
	// It is borrowed: valid during the call only, in both directions.
	Payload []byte
	// Whole says that this record supersedes every state record of the message before it. It keeps short what must
	// be copied with a message that waits for long. On replay a Restated comes before such a record.
	Whole bool
}

// Errors a caller does something different for. All others mean a programmer's error or a fault
// of the disk that concerns one call.
var (
	ErrFull        = errors.New("journal is full")             // room comes back when messages end
	ErrUnavailable = errors.New("journal cannot write")        // it tries again by itself
	ErrClosed      = errors.New("journal is closed")           // Close was called
	ErrLocked      = errors.New("journal is in use")           // by another process
	ErrNotFound    = errors.New("message not in journal")      // never accepted, or ended
	ErrDamaged     = errors.New("message damaged on disk")     // its checksum does not match
	ErrVersion     = errors.New("unknown journal version")     // written by a later mailweir
	ErrTooLarge    = errors.New("too large for the journal")   // no journal of this size can ever take it
	ErrExists      = errors.New("message already in journal")  // its ID is taken
	errDraftEnded  = errors.New("draft was ended before")      // programmer's error
	errRecord      = errors.New("not a state record")          // programmer's error
	errShort       = errors.New("file shorter than its bytes") // damage
	errNumber      = errors.New("no segment number is left")   // a file with the last one was there at Open
)

// Bounds on what one caller may hand in, and on what is under way.
const (
	maxMetaBytes     = 1 << 20
	maxGroupBytes    = 1 << 20
	maxPayloadBytes  = 4 << 20  // of one frame; above every length that can be written
	maxQueued        = 1024     // requests handed in and not taken by the writer
	maxBatchBytes    = 1 << 20  // one write(2), unless a single record is longer
	maxUnsyncedBytes = 8 << 20  // state records kept in memory until they are synced
	maxBlobs         = 128      // names
	maxBlobName      = 255      // bytes
	maxBlobBytes     = 64 << 10 // of one blob; of all: SegmentBytes/segmentShare
)
