package rival

import (
	"math"
	"testing"
	"time"

	"github.com/mailweir/mailweir/bench/fleet/model"
)

// The table in Postfix's SCHEDULER_README (server limit 5, client limit 20, no connection caching) says how many deliveries were
// deferred. A model in which its law comes out as measured in the world is a model in which others may be judged.
func TestPostfixDefersAsManyAsItsAuthorsMeasured(t *testing.T) {
	for _, v := range []struct {
		feedback string
		constant bool
		deferred float64
	}{{"1/N", false, .165}, {"1", true, .497}} {
		s := model.Scenario{
			Name: "README", Groups: []model.Group{{Pods: 1, Backlog: model.Endless}}, Server: model.Server{Limit: 5},
			For: 10 * time.Minute,
		}
		r, err := model.Run(&s, PostfixTable(v.constant), 1, model.Options{})
		if err != nil {
			t.Fatal(err)
		}
		got := float64(r.Totals.Refused) / float64(r.Totals.Refused+r.Totals.Sent)
		t.Logf("feedback %s: %.1f %% deferred, published %.1f %%", v.feedback, 100*got, 100*v.deferred)
		if math.Abs(got-v.deferred) > .02 {
			t.Errorf("feedback %s: %.1f %% deferred, published %.1f %%, want within two points", v.feedback, 100*got, 100*v.deferred)
		}
	}
}
