package draw

import (
	"strings"
	"unicode"
)

// Width returns the estimated width of a text in pixels. The estimate is for a wide sans-serif font, so the text
// needs less space in most fonts.
func Width(text string, size float64, bold bool) float64 {
	var w float64
	for _, r := range text {
		w += runeWidth(r)
	}
	if bold {
		w *= 1.11
	}
	return w * size
}

// runeWidth returns the width of a character in units of the font size.
func runeWidth(r rune) float64 {
	switch {
	case strings.ContainsRune("ijlI.,:;'|!()[]/ ", r):
		return 0.39
	case strings.ContainsRune("frt-\"", r):
		return 0.43
	case strings.ContainsRune("mwMWOQ@%→←–…✖⚠", r):
		return 0.98
	case r == '_' || unicode.IsLower(r) && r < 0x250 || unicode.IsDigit(r):
		return 0.64
	case r < 0x250:
		return 0.74
	case unicode.Is(unicode.Mn, r):
		return 0
	}
	return 1.05 // for example Chinese characters
}

// Fit returns the text, or its beginning with an ellipsis if the text is wider than width.
func Fit(text string, size float64, bold bool, width float64) string {
	if Width(text, size, bold) <= width {
		return text
	}
	runes := []rune(text)
	for n := len(runes) - 1; n > 0; n-- {
		if short := strings.TrimRight(string(runes[:n]), " ") + "…"; Width(short, size, bold) <= width {
			return short
		}
	}
	return "…"
}

// Wrap breaks a text into at most maxLines lines of at most width pixels, at spaces where possible. The last line ends
// with an ellipsis if the text is longer.
func Wrap(text string, size float64, bold bool, width float64, maxLines int) []string {
	var lines []string
	line := ""
	words := strings.Fields(text)
	for i, word := range words {
		next := word
		if line != "" {
			next = line + " " + word
		}
		if line == "" || Width(next, size, bold) <= width {
			line = next
			continue
		}
		if len(lines) == maxLines-1 {
			return append(lines, Fit(line+" "+strings.Join(words[i:], " "), size, bold, width))
		}
		lines, line = append(lines, Fit(line, size, bold, width)), word
	}
	if line != "" {
		lines = append(lines, Fit(line, size, bold, width))
	}
	return lines
}

// escape returns a text for XML. It replaces characters that XML does not allow.
func escape(text string) string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case r == '&':
			b.WriteString("&amp;")
		case r == '<':
			b.WriteString("&lt;")
		case r == '>':
			b.WriteString("&gt;")
		case r == '"':
			b.WriteString("&quot;")
		case r < 0x20 && r != '\t' && r != '\n' || r == 0xfffe || r == 0xffff:
			b.WriteRune(unicode.ReplacementChar)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
