package reseller

import "time"

// ChinaTime is the time zone of dates from sellers in China, which do not name it.
var ChinaTime = time.FixedZone("UTC+8", 8*60*60)

// ChinaDate is a time as sellers in China write it, empty for the zero time.
func ChinaDate(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.In(ChinaTime).Format(time.DateTime)
}
