package queue

import "time"

// Config bounds when deliveries are due.
type Config struct {
	RetryMin          time.Duration // first pause after a failure that concerns the whole upstream
	RetryMax          time.Duration // longest such pause
	RecipientRetryMin time.Duration // first pause after a recipient's own 4xx
	RecipientRetryMax time.Duration // longest such pause
	ExpireAfter       time.Duration // age at which a delivery is given up, after one more completed attempt
}
