package queue

import "time"

// Config bounds when deliveries are due.
type Config struct {
	RetryMin          time.Duration // first pause after a failure that concerns the whole upstream
	RetryMax          time.Duration // longest such pause
	RecipientRetryMin time.Duration // first pause after a recipient's own 4xx
	RecipientRetryMax time.Duration // longest such pause
	GroupMax          int           // recipients of one delivery; 0: MaxGroup
	ExpireAfter       time.Duration // age at which a delivery is given up, after one more completed attempt
}

// Group returns how many recipients one delivery has at most: GroupMax, between 1 and the package's MaxGroup.
func (c Config) Group() int {
	if c.GroupMax <= 0 {
		return MaxGroup
	}
	return min(c.GroupMax, MaxGroup)
}
