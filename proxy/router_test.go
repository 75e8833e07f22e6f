package proxy

import (
	"reflect"
	"testing"

	"github.com/mailweir/mailweir/proxy/message"
	"github.com/mailweir/mailweir/proxy/queue"
	"github.com/mailweir/mailweir/proxy/route"
)

// Every recipient is in one delivery, of its lane, with no more of them than its upstream takes; and mail for one domain waits its turn
// with that domain, whatever else the message is for.
func TestAMessageIsCutByLaneAndByWhatEachTakes(t *testing.T) {
	p, err := route.Parse("*.b.example")
	if err != nil {
		t.Fatal(err)
	}
	from, err := route.Parse("news.example")
	if err != nil {
		t.Fatal(err)
	}
	r := &router{most: []int{100, 2, 3}, table: route.Table{{From: []route.Pattern{from}, Lane: 2}, {To: []route.Pattern{p}, Lane: 1}}}
	for name, tt := range map[string]struct {
		from string
		to   []string
		want []queue.Group
	}{
		"one lane":            {"x@a.example", []string{"u@c.example", "v@C.example"}, []queue.Group{{Key: "c.example"}}},
		"one that is another": {"x@a.example", []string{"u@x.b.example"}, []queue.Group{{Lane: 1, Key: "x.b.example"}}},
		"by the sender":       {"x@News.example", []string{"u@x.b.example", "u@c.example"}, []queue.Group{{Lane: 2, Key: mixedKey}}},
		"the null sender":     {"", []string{"u@c.example"}, []queue.Group{{Key: "c.example"}}},
		"two lanes": {"x@a.example", []string{"u@c.example", "u@x.b.example", "u@d.example", "v@X.B.example"},
			[]queue.Group{{Key: mixedKey, To: []int{0, 2}}, {Lane: 1, Key: "x.b.example", To: []int{1, 3}}}},
		"more than it takes": {"x@a.example", []string{"1@x.b.example", "2@x.b.example", "3@y.b.example", "4@x.b.example", "5@x.b.example"},
			[]queue.Group{{Lane: 1, Key: "x.b.example", To: []int{0, 1}}, {Lane: 1, Key: mixedKey, To: []int{2, 3}}, {Lane: 1, Key: "x.b.example", To: []int{4}}}},
	} {
		env := &message.Envelope{From: tt.from}
		for _, to := range tt.to {
			env.To = append(env.To, message.Recipient{Addr: to})
		}
		got := r.groups(env)
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s:\n%+v, want\n%+v", name, got, tt.want)
		}
		for i := range got { // a list that grows must not write over the next one
			got[i].To = append(got[i].To, -1)
		}
		for i := range got {
			if len(tt.want[i].To) > 0 && !reflect.DeepEqual(got[i].To[:len(tt.want[i].To)], tt.want[i].To) {
				t.Errorf("%s: %v", name, got[i].To)
			}
		}
	}
}
