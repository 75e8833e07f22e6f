package config

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// A canary in every setting that holds a secret, alone, all together, with and without what they need: it is never shown.
func TestNoSecretIsEverShown(t *testing.T) {
	const canary = "c4nary-S3cret"
	var secrets []setting
	for _, s := range settings {
		if s.secret {
			secrets = append(secrets, s)
		}
	}
	if len(secrets) != 3 {
		t.Errorf("%d secrets", len(secrets))
	}
	for _, base := range [][]string{
		{"MAILWEIR_UPSTREAM_USERNAME=u"}, {"MAILWEIR_UPSTREAM_OAUTH_TENANT=t.example", "MAILWEIR_UPSTREAM_OAUTH_CLIENT_ID=id", "MAILWEIR_UPSTREAM_USERNAME=u"}, {},
		{"MAILWEIR_UPSTREAM_OAUTH_TOKEN_URL=https://u:" + canary + "@x.example", "MAILWEIR_UPSTREAM_OAUTH_CLIENT_ID=id"},
	} {
		for picked := range 1 << len(secrets) {
			environ, file := append([]string{"MAILWEIR_UPSTREAM=smtp://relay.example"}, base...), ""
			for i, s := range secrets {
				if picked>>i&1 == 1 {
					environ = append(environ, s.env+"="+canary+"\n")
					file += s.key + ": [" + canary + "]\n"
				}
			}
			for _, env := range [][]string{environ, append(environ[:1+len(base):1+len(base)], "MAILWEIR_CONFIG="+writeFile(t, file))} {
				cfg, report, err := load(env, testHost())
				var table strings.Builder
				if err := report.WriteTable(&table); err != nil {
					t.Fatal(err)
				}
				text, _ := json.Marshal(cfg)
				shown := fmt.Sprintf("%v %+v %#v %s %v %v %s %v", cfg, cfg, cfg, text, report.Values, report.Warnings, table.String(), err)
				if at := strings.Index(shown, canary); at >= 0 {
					t.Errorf("%q: ...%s...", env, shown[max(0, at-100):at+13])
				}
			}
		}
	}
}
