package config

import (
	"crypto/sha256"
	"slices"
	"strings"
)

// AtStart is the files that only a start reads, as it read them: the YAML file, routes, rules, the list of keys. The zero value is
// none. Files with secrets, keys and certificates are not among them; these are read whenever they are used.
type AtStart struct {
	files []readFile
	again func() error // a Load of the same environment; nil: none
}

// readFile is one of them.
type readFile struct {
	key, path string
	is        [sha256.Size]byte // what it held
}

// Look is what the files hold at one moment. Equal looks saw the same.
type Look struct {
	Changed string            // those that are not as the start read them, by key and path, separated by commas; "": all are
	holds   [sha256.Size]byte // what those hold; zero: none has changed
}

// read returns the content of a file that only a start reads, and takes note of it.
func (l *loader) read(key, path string) ([]byte, error) {
	text, err := readBounded(path)
	if err == nil {
		l.cfg.AtStart.files = append(l.cfg.AtStart.files, readFile{key, path, sha256.Sum256(text)})
	}
	return text, err
}

// Any reports whether there is a file to look at.
func (s AtStart) Any() bool { return len(s.files) > 0 }

// Look reads the files again. What cannot be read has changed.
func (s AtStart) Look() (now Look) {
	var changed []string
	var all []byte
	for _, f := range s.files {
		text, err := readBounded(f.path)
		if err != nil {
			text = []byte(err.Error())
		}
		is := sha256.Sum256(text)
		if err != nil || is != f.is {
			changed = append(changed, f.key+" "+f.path)
			all = slices.Concat(all, []byte(f.key), is[:])
		}
	}
	if changed != nil {
		now = Look{Changed: strings.Join(changed, ", "), holds: sha256.Sum256(all)}
	}
	return now
}

// Check says what a start would find wrong with the configuration as it is now: Faults, or nil.
func (s AtStart) Check() error {
	if s.again == nil {
		return nil
	}
	return s.again()
}
