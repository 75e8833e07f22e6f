package config

import (
	"strconv"
	"strings"

	"github.com/mailweir/mailweir/flowctl"
	"github.com/mailweir/mailweir/proxy/oauth"
	"github.com/mailweir/mailweir/proxy/queue"
	"github.com/mailweir/mailweir/proxy/upstream"
)

// setting is one thing that can be set. Names, defaults, bounds and words stand here and nowhere else:
// Default, Load, the table in the README and the suggestions are all made from it.
type setting struct {
	key     string            // in the file; its dots are the levels
	env     string            // in the environment
	value   string            // the default, written as a user would; "": the type's zero
	empty   string            // what an empty (or zero) value means, for the reader; "": nothing special
	min     string            // the least allowed, written like value; "": none
	max     string            // the most allowed; "": none
	oneOf   []string          // the words allowed; nil: any
	example string            // what to try when a component refuses the value; "": nothing
	secret  bool              // never shown
	doc     string            // one sentence, the consequence first
	at      func(*Config) any // where it lands; the pointer's type says how it is written (see parseInto)
}

// fileSetting names the file itself, so it can be in the environment only.
const fileSetting = "config"

var settings = []setting{
	{key: fileSetting, env: "MAILWEIR_CONFIG", empty: "no file",
		doc: "Path of an optional YAML file; what the environment says wins over it.",
		at:  func(c *Config) any { return &c.File }},
	{key: "hostname", env: "MAILWEIR_HOSTNAME", empty: "the host's name", example: "mail.example.com",
		doc: "Our name in the greeting, in EHLO and in Received.",
		at:  func(c *Config) any { return &c.Hostname }},
	{key: "log.level", env: "MAILWEIR_LOG_LEVEL", value: "info", oneOf: []string{"debug", "info", "warn", "error"},
		doc: "The least severe line that is written.",
		at:  func(c *Config) any { return &c.Log.Level }},
	{key: "log.addresses", env: "MAILWEIR_LOG_ADDRESSES", value: "hash", oneOf: []string{"hash", "plain"},
		doc: "How mail addresses appear in the log.",
		at:  func(c *Config) any { return &c.Log.Addresses }},

	{key: "listen", env: "MAILWEIR_LISTEN", value: "127.0.0.1:2525,[::1]:2525", example: "127.0.0.1:2525",
		doc: "Where the application hands in its mail; loopback addresses only, separated by commas.",
		at:  func(c *Config) any { return &c.SMTPD.Listen }},
	{key: "max_message_bytes", env: "MAILWEIR_MAX_MESSAGE_BYTES", value: "50MiB", min: "1KiB", max: "1GiB",
		doc: "The largest message accepted.",
		at:  func(c *Config) any { return &c.SMTPD.MaxMessageBytes }},
	{key: "max_recipients", env: "MAILWEIR_MAX_RECIPIENTS", value: "1000", min: "100", max: "100000",
		doc: "Recipients of one message; RFC 5321 wants at least 100.",
		at:  func(c *Config) any { return &c.SMTPD.MaxRecipients }},
	{key: "max_connections", env: "MAILWEIR_MAX_CONNECTIONS", value: "1024", min: "1", max: "65536",
		doc: "Connections of the application at one time; the next one waits, it is not refused.",
		at:  func(c *Config) any { return &c.SMTPD.MaxConnections }},
	{key: "max_hops", env: "MAILWEIR_MAX_HOPS", value: "25", min: "1", max: "100",
		doc: "Received header fields after which a message is taken to be looping and refused.",
		at:  func(c *Config) any { return &c.SMTPD.MaxHops }},
	{key: "accept_any_auth", env: "MAILWEIR_ACCEPT_ANY_AUTH", value: "false",
		doc: "Offers AUTH to an application that insists on it, and takes whatever credentials come.",
		at:  func(c *Config) any { return &c.SMTPD.AcceptAnyAuth }},
	{key: "qualify_domain", env: "MAILWEIR_QUALIFY_DOMAIN", empty: "such addresses are refused, but for postmaster", example: "example.com",
		doc: "Domain given to an address without one, such as `root`.",
		at:  func(c *Config) any { return &c.SMTPD.QualifyDomain }},
	{key: "bare_newline", env: "MAILWEIR_BARE_NEWLINE", value: "normalize", oneOf: []string{"normalize", "reject"},
		doc: "What happens to a line end that is not CRLF.",
		at:  func(c *Config) any { return &c.SMTPD.BareNewline }},
	{key: "idle_timeout", env: "MAILWEIR_IDLE_TIMEOUT", value: "5m", min: "1s", max: "1h",
		doc: "Longest wait for the application's next command or octet.",
		at:  func(c *Config) any { return &c.SMTPD.IdleTimeout }},

	{key: "upstream.url", env: "MAILWEIR_UPSTREAM", empty: "required", example: "smtp://relay.example.com:587",
		doc: "The relay that takes the mail: `smtp://host:587` (STARTTLS when offered) or `smtps://host:465`; or several separated by commas, with `?priority=10&weight=2` where they are not equal: see Several hosts.",
		at:  func(c *Config) any { return &c.Upstream.URL }},
	{key: "upstream.username", env: "MAILWEIR_UPSTREAM_USERNAME", empty: "no AUTH",
		doc: "User name at the upstream; with credentials TLS is required and verified.",
		at:  func(c *Config) any { return &c.Upstream.Username }},
	{key: "upstream.password", env: "MAILWEIR_UPSTREAM_PASSWORD", secret: true,
		doc: "Password at the upstream.",
		at:  func(c *Config) any { return &c.Upstream.Password }},
	{key: "upstream.password_file", env: "MAILWEIR_UPSTREAM_PASSWORD_FILE",
		doc: "File with the password, read again at each login; in place of the password itself.",
		at:  func(c *Config) any { return &c.Upstream.PasswordFile }},
	{key: "upstream.auth", env: "MAILWEIR_UPSTREAM_AUTH", value: upstream.AuthAuto, oneOf: upstream.AuthNames(), example: upstream.AuthAuto,
		doc: "How we log in; `auto` takes the strongest that the upstream offers, in this order.",
		at:  func(c *Config) any { return &c.Upstream.Auth }},
	{key: "upstream.tls", env: "MAILWEIR_UPSTREAM_TLS", value: "opportunistic", oneOf: []string{"none", "opportunistic", "require"}, example: "require",
		doc: "Whether the upstream must speak TLS; `require` also verifies its certificate.",
		at:  func(c *Config) any { return &c.Upstream.TLS }},
	{key: "upstream.ca_file", env: "MAILWEIR_UPSTREAM_CA_FILE", empty: "the system's",
		doc: "PEM file of the certificate authorities to trust; this and the next two are read again at each connection.",
		at:  func(c *Config) any { return &c.Upstream.CAFile }},
	{key: "upstream.cert_file", env: "MAILWEIR_UPSTREAM_CERT_FILE", empty: "none",
		doc: "PEM file of the certificate that we show to the upstream.",
		at:  func(c *Config) any { return &c.Upstream.CertFile }},
	{key: "upstream.key_file", env: "MAILWEIR_UPSTREAM_KEY_FILE",
		doc: "PEM file of its key.",
		at:  func(c *Config) any { return &c.Upstream.KeyFile }},
	{key: "upstream.server_name", env: "MAILWEIR_UPSTREAM_SERVER_NAME", empty: "the host of the URL", example: "relay.example.com",
		doc: "Name that the upstream's certificate must have.",
		at:  func(c *Config) any { return &c.Upstream.ServerName }},
	{key: "upstream.plaintext_auth", env: "MAILWEIR_UPSTREAM_PLAINTEXT_AUTH", value: "false",
		doc: "Allows credentials to be sent without TLS.",
		at:  func(c *Config) any { return &c.Upstream.PlaintextAuth }},
	{key: "upstream.oauth_tenant", env: "MAILWEIR_UPSTREAM_OAUTH_TENANT", empty: "no OAuth with Microsoft", example: "example.onmicrosoft.com",
		doc: "Tenant of Microsoft Entra that gives tokens, by ID or domain; the mailbox is `upstream.username`.",
		at:  func(c *Config) any { return &c.OAuth.Tenant }},
	{key: "upstream.oauth_token_url", env: "MAILWEIR_UPSTREAM_OAUTH_TOKEN_URL", empty: "Microsoft's or Google's", example: "https://login.example.com/token",
		doc: "Token endpoint of anybody else.",
		at:  func(c *Config) any { return &c.OAuth.TokenURL }},
	{key: "upstream.oauth_client_id", env: "MAILWEIR_UPSTREAM_OAUTH_CLIENT_ID",
		doc: "ID of the application that asks for tokens.",
		at:  func(c *Config) any { return &c.OAuth.ClientID }},
	{key: "upstream.oauth_client_secret", env: "MAILWEIR_UPSTREAM_OAUTH_CLIENT_SECRET", secret: true,
		doc: "Its secret.",
		at:  func(c *Config) any { return &c.OAuth.ClientSecret }},
	{key: "upstream.oauth_client_secret_file", env: "MAILWEIR_UPSTREAM_OAUTH_CLIENT_SECRET_FILE",
		doc: "File with its secret, in place of the secret itself; like all files of OAuth read again for each token.",
		at:  func(c *Config) any { return &c.OAuth.ClientSecretFile }},
	{key: "upstream.oauth_cert_file", env: "MAILWEIR_UPSTREAM_OAUTH_CERT_FILE",
		doc: "PEM file of its certificate, in place of a secret: an assertion signed with the key shows who asks.",
		at:  func(c *Config) any { return &c.OAuth.CertFile }},
	{key: "upstream.oauth_key_file", env: "MAILWEIR_UPSTREAM_OAUTH_KEY_FILE",
		doc: "PEM file of the certificate's RSA key.",
		at:  func(c *Config) any { return &c.OAuth.KeyFile }},
	{key: "upstream.oauth_algorithm", env: "MAILWEIR_UPSTREAM_OAUTH_ALGORITHM", value: oauth.PS256, oneOf: []string{oauth.PS256, oauth.RS256},
		doc: "How that assertion is signed; it names the certificate by `x5t#S256` with the first, by `x5t` with the second.",
		at:  func(c *Config) any { return &c.OAuth.Algorithm }},
	{key: "upstream.oauth_assertion_file", env: "MAILWEIR_UPSTREAM_OAUTH_ASSERTION_FILE",
		doc: "File with a federated token, in place of a secret, such as the one that workload identity projects into a pod.",
		at:  func(c *Config) any { return &c.OAuth.AssertionFile }},
	{key: "upstream.oauth_refresh_token", env: "MAILWEIR_UPSTREAM_OAUTH_REFRESH_TOKEN", secret: true,
		doc: "Refresh token of a user in whose name mail is sent; the application then may do without a secret.",
		at:  func(c *Config) any { return &c.OAuth.RefreshToken }},
	{key: "upstream.oauth_refresh_token_file", env: "MAILWEIR_UPSTREAM_OAUTH_REFRESH_TOKEN_FILE",
		doc: "File with such a token, in place of the token itself.",
		at:  func(c *Config) any { return &c.OAuth.RefreshTokenFile }},
	{key: "upstream.oauth_google_file", env: "MAILWEIR_UPSTREAM_OAUTH_GOOGLE_FILE",
		doc: "JSON key file of a service account of Google with domain-wide delegation; needs nothing else of OAuth.",
		at:  func(c *Config) any { return &c.OAuth.GoogleFile }},
	{key: "upstream.oauth_google_subject", env: "MAILWEIR_UPSTREAM_OAUTH_GOOGLE_SUBJECT", empty: "upstream.username",
		doc: "User that the service account acts for.",
		at:  func(c *Config) any { return &c.OAuth.GoogleSubject }},
	{key: "upstream.oauth_scope", env: "MAILWEIR_UPSTREAM_OAUTH_SCOPE",
		empty: "`" + oauth.MicrosoftScope + "` at Microsoft, `" + oauth.GoogleScope + "` for a service account, else none",
		doc:   "What the token is to be good for.",
		at:    func(c *Config) any { return &c.OAuth.Scope }},
	{key: profileSetting, env: "MAILWEIR_UPSTREAM_PROFILE", value: profiles[0].name, oneOf: profileNames(),
		doc: profileDoc(),
		at:  func(c *Config) any { return &c.UpstreamProfile }},
	{key: "upstream.max_connections", env: "MAILWEIR_UPSTREAM_MAX_CONNECTIONS", value: "20", min: "1", max: strconv.Itoa(flowctl.MaxConnsLimit),
		doc: "The most connections the upstream ever sees; how many there are is found out.",
		at:  func(c *Config) any { return &c.Flow.MaxConns }},
	{key: "upstream.slowness", env: "MAILWEIR_UPSTREAM_SLOWNESS", value: slownessIgnore, oneOf: []string{slownessIgnore, slownessGain},
		doc: "For an upstream that never refuses but gets slower: `gain` keeps a wider pool only where it delivers more messages a second; `ignore` goes by refusals and time-outs alone.",
		at:  func(c *Config) any { return &c.UpstreamSlowness }},
	{key: "upstream.window", env: "MAILWEIR_UPSTREAM_WINDOW", value: "1", example: upstream.WindowAuto,
		doc: "Messages that may be in flight on one connection, 1 to " + strconv.Itoa(upstream.WindowMax) + ", or `auto`, which finds it out: one that breaks may deliver so many twice; see [below](#messages-in-flight).",
		at:  func(c *Config) any { return &c.Upstream.Window }},
	{key: "upstream.patience", env: "MAILWEIR_UPSTREAM_PATIENCE", value: "1", min: "0.1", max: "10",
		doc: "Factor on the pauses of a process that waits for a connection while others hold all there are. Above 1 fewer dials are refused and shares are a little less equal: for fleets of many hundreds.",
		at:  func(c *Config) any { return &c.Flow.Patience }},
	{key: "upstream.messages_per_connection", env: "MAILWEIR_UPSTREAM_MESSAGES_PER_CONNECTION", value: "0", empty: "as many as the upstream takes", max: "1000000",
		doc: "Messages after which a connection is replaced.",
		at:  func(c *Config) any { return &c.Upstream.MessagesMax }},
	{key: "upstream.connection_max_age", env: "MAILWEIR_UPSTREAM_CONNECTION_MAX_AGE", value: "1h", min: "1s", max: "24h",
		doc: "Age at which a connection is replaced, so that a change of DNS is followed.",
		at:  func(c *Config) any { return &c.Upstream.AgeMax }},
	{key: "upstream.recipients_per_transaction", env: "MAILWEIR_UPSTREAM_RECIPIENTS_PER_TRANSACTION", value: "0",
		empty: strconv.Itoa(queue.MaxGroup) + ", which every relay must take", max: strconv.Itoa(queue.MaxGroup),
		doc: "Recipients that the upstream is given in one transaction.",
		at:  func(c *Config) any { return &c.Queue.GroupMax }},
	{key: "upstream.eight_bit", env: "MAILWEIR_UPSTREAM_EIGHT_BIT", value: upstream.EightBitSend, oneOf: []string{upstream.EightBitSend, upstream.EightBitReject},
		doc: "What becomes of mail declared as 8BITMIME where the upstream does not offer that: sent as it is, or dead with 5.6.3.",
		at:  func(c *Config) any { return &c.Upstream.EightBit }},
	{key: "upstream.discard_ehlo", env: "MAILWEIR_UPSTREAM_DISCARD_EHLO", example: "CHUNKING", empty: "none",
		doc: "Extensions that count as not offered, for an upstream that gets them wrong, separated by commas; of " + strings.Join(upstream.EhloKeywords, ", ") + ".",
		at:  func(c *Config) any { return &c.Upstream.DiscardEHLO }},
	{key: "upstream.rules", env: "MAILWEIR_UPSTREAM_RULES", empty: "only the built-in ones",
		doc: "Your own rules about what replies mean, a YAML list; the first that fits wins, before the built-in ones.",
		at:  func(c *Config) any { return &c.UpstreamRules }},
	{key: "upstream.rules_file", env: "MAILWEIR_UPSTREAM_RULES_FILE",
		doc: "File with such a list, in place of the list itself; read at the start.",
		at:  func(c *Config) any { return &c.UpstreamRulesFile }},
	{key: "quota.recipients_per_day", env: "MAILWEIR_QUOTA_RECIPIENTS_PER_DAY", value: "0", empty: "no fixed limit", max: "1000000000",
		doc: "The most recipients that the upstream is given in any 24 hours; the rest waits.",
		at:  func(c *Config) any { return &c.Flow.RecipientsPerDay }},
	{key: "rate_per_second", env: "MAILWEIR_RATE_PER_SECOND", value: "0", empty: "no fixed limit", max: "100000",
		doc: "The most messages a second the upstream is given; may be a fraction.",
		at:  func(c *Config) any { return &c.Flow.PerSecond }},

	{key: "routes", env: "MAILWEIR_ROUTES", empty: "everything goes to the default upstream",
		doc: "Which mail goes to another upstream, a YAML list of from, to, upstream and that upstream's settings; see Routes.",
		at:  func(c *Config) any { return &c.Routes }},
	{key: "routes_file", env: "MAILWEIR_ROUTES_FILE",
		doc: "File with such a list, in place of the list itself; read at the start.",
		at:  func(c *Config) any { return &c.RoutesFile }},

	{key: "dkim.keys", env: "MAILWEIR_DKIM_KEYS", empty: "nothing is signed",
		doc: "Keys that sign mail by the domain of its From field, a YAML list of domain, selector, key_file and from; see DKIM.",
		at:  func(c *Config) any { return &c.DKIMKeys }},
	{key: "dkim.keys_file", env: "MAILWEIR_DKIM_KEYS_FILE",
		doc: "File with such a list, in place of the list itself; read at the start.",
		at:  func(c *Config) any { return &c.DKIMKeysFile }},

	{key: "journal.dir", env: "MAILWEIR_JOURNAL_DIR", value: "/var/lib/mailweir",
		doc: "Directory of the accepted mail; what a 250 is worth depends on the volume below it.",
		at:  func(c *Config) any { return &c.Journal.Dir }},
	{key: "journal.allow_volatile", env: "MAILWEIR_JOURNAL_ALLOW_VOLATILE", value: "false",
		doc: "Accepts a journal in memory or in a container's own layer, where accepted mail ends with the container.",
		at:  func(c *Config) any { return &c.JournalAllowVolatile }},
	{key: "journal.max_bytes", env: "MAILWEIR_JOURNAL_MAX_BYTES", value: "1GiB", min: "16MiB", max: "16TiB",
		doc: "Size of the journal directory at which new mail hears 452 and waits in the application.",
		at:  func(c *Config) any { return &c.Journal.MaxBytes }},
	{key: "queue.max_messages", env: "MAILWEIR_QUEUE_MAX_MESSAGES", value: "0", empty: "by the memory limit, 256 B each of a quarter of it", max: "10000000",
		doc: "Pending messages at which new mail hears 452.",
		at:  func(c *Config) any { return &c.QueueMaxMessages }},
	{key: "retry.min", env: "MAILWEIR_RETRY_MIN", value: "1s", min: "100ms", max: "1h",
		doc: "First pause after a failure that concerns the whole upstream.",
		at:  func(c *Config) any { return &c.Queue.RetryMin }},
	{key: "retry.max", env: "MAILWEIR_RETRY_MAX", value: "1m", min: "100ms", max: "24h",
		doc: "Longest such pause.",
		at:  func(c *Config) any { return &c.Queue.RetryMax }},
	{key: "recipient_retry.min", env: "MAILWEIR_RECIPIENT_RETRY_MIN", value: "5m", min: "100ms", max: "24h",
		doc: "First pause after a temporary refusal of one recipient.",
		at:  func(c *Config) any { return &c.Queue.RecipientRetryMin }},
	{key: "recipient_retry.max", env: "MAILWEIR_RECIPIENT_RETRY_MAX", value: "1h", min: "100ms", max: "24h",
		doc: "Longest such pause.",
		at:  func(c *Config) any { return &c.Queue.RecipientRetryMax }},
	{key: "expire_after", env: "MAILWEIR_EXPIRE_AFTER", value: "96h", min: "1m", max: "720h",
		doc: "Age at which a message that was only ever deferred becomes dead, after one more attempt.",
		at:  func(c *Config) any { return &c.Queue.ExpireAfter }},
	{key: "dead.keep", env: "MAILWEIR_DEAD_KEEP", value: "168h", min: "1m", max: "8760h",
		doc: "How long a dead message stays readable.",
		at:  func(c *Config) any { return &c.DeadKeep }},
	{key: "dead.max_bytes", env: "MAILWEIR_DEAD_MAX_BYTES", value: "0", empty: "an eighth of journal.max_bytes", max: "16TiB",
		doc: "How many bytes of dead messages are kept; the oldest go first, and earlier when the journal runs full.",
		at:  func(c *Config) any { return &c.DeadMaxBytes }},

	{key: "drain_timeout", env: "MAILWEIR_DRAIN_TIMEOUT", value: "25s", max: "1h",
		doc: "How long after SIGTERM delivery goes on; the rest stays in the journal and the exit code is 75.",
		at:  func(c *Config) any { return &c.DrainTimeout }},
	{key: "accept_after_term", env: "MAILWEIR_ACCEPT_AFTER_TERM", value: "0s", max: "1h",
		doc: "How long after SIGTERM mail is still accepted, for an application that is stopped at the same time.",
		at:  func(c *Config) any { return &c.AcceptAfterTerm }},
	{key: "probe.listen", env: "MAILWEIR_PROBE_LISTEN", value: ":9025", example: ":9025",
		doc: "Where `/healthz`, `/readyz` and `/metrics` are; `off` for nowhere.",
		at:  func(c *Config) any { return &c.Admin.ProbeListen }},
	{key: "admin.listen", env: "MAILWEIR_ADMIN_LISTEN", empty: "`unix:` + journal.dir + `/admin.sock`", example: "127.0.0.1:9026",
		doc: "Where `mailweir status` and `mailweir queue` are answered: `unix:/path`, a loopback host:port, or `off`.",
		at:  func(c *Config) any { return &c.Admin.Listen }},
	{key: "time_scale", env: "MAILWEIR_TIME_SCALE", value: "1", min: "0.001", max: "10",
		doc: "Factor on the pauses of the flow control; for tests only.",
		at:  func(c *Config) any { return &c.Flow.Scale }},
}

// Values of upstream.slowness.
const (
	slownessIgnore = "ignore"
	slownessGain   = "gain"
)

// settingByKey returns nil for a key that does not exist.
func settingByKey(key string) *setting {
	for i := range settings {
		if settings[i].key == key {
			return &settings[i]
		}
	}
	return nil
}
