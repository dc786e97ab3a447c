package sandboxca

import (
	"encoding/json"
	"fmt"
	"time"
)

// ChinaTime is the zone of the dates of sellers in China, which carry none.
var ChinaTime = time.FixedZone("UTC+8", 8*60*60)

// ChinaDate is a time as sellers in China write it, empty for the zero time.
func ChinaDate(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.In(ChinaTime).Format(time.DateTime)
}

// Money is an amount of cents as a JSON number with two decimals.
func Money(cents int64) json.Number {
	return json.Number(fmt.Sprintf("%d.%02d", cents/100, cents%100))
}
