package journal

import "fmt"

// quarantined bounds the files of one name that are kept: beyond it something damages faster than anybody looks, and the last is written over.
const quarantined = 1000

// quarantine keeps a file under another name, for a human. One that is there under that name already is as precious.
func (j *Journal) quarantine(name string) error {
	list, err := j.fs.List()
	if err != nil {
		return err
	}
	taken := make(map[string]bool, len(list))
	for _, f := range list {
		taken[f.Name] = true
	}
	to := name + quarantineSuffix
	for n := 2; taken[to] && n <= quarantined; n++ {
		to = fmt.Sprintf("%s-%d%s", name, n, quarantineSuffix)
	}
	return j.fs.Rename(name, to)
}
