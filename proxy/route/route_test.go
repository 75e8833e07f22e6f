package route

import "testing"

func patterns(t *testing.T, texts ...string) (list []Pattern) {
	t.Helper()
	for _, text := range texts {
		p, err := Parse(text)
		if err != nil || p.String() != ascii(text) {
			t.Fatalf("%q: %v, %v", text, p, err)
		}
		list = append(list, p)
	}
	return list
}

func TestTheFirstRuleThatFitsWins(t *testing.T) {
	table := Table{
		{From: patterns(t, "news.example"), To: patterns(t, "vip.example"), Lane: 3},
		{From: patterns(t, "news.example", "*.news.example"), Lane: 1},
		{To: patterns(t, "*.corp.example", "corp.example"), Lane: 2},
		{To: patterns(t, "b\u00fccher.example", "*.xn--bcher-kva.example"), Lane: 4},
	}
	for _, c := range []struct {
		from, to string
		want     int
	}{
		{"news.example", "vip.example", 3},
		{"a.news.example", "vip.example", 1},
		{"news.example", "x.corp.example", 1},
		{"app.example", "x.y.corp.example", 2},
		{"app.example", "corp.example", 2},
		{"app.example", "notcorp.example", 0},
		{"oldnews.example", "x.example", 0},
		{"", "corp.example", 2}, // the null sender
		{"", "vip.example", 0},
		{"", "b\u00fccher.example", 4},
		{"", "xn--bcher-kva.example", 4},
		{"", "a.b\u00fccher.example", 4},
		{"", "a.xn--bcher-kva.example", 4},
	} {
		if got := table.Lane(c.from, c.to); got != c.want {
			t.Errorf("from %q to %q: lane %d, want %d", c.from, c.to, got, c.want)
		}
	}
}

func TestWhatIsNoPatternIsRefused(t *testing.T) {
	for _, text := range []string{"", "*", "*.", "a@b.example", "b.*.example", "*example.com", "a b", "a..b", "-", "http://x"} {
		if p, err := Parse(text); err == nil {
			t.Errorf("%q is taken as %v", text, p)
		}
	}
}
