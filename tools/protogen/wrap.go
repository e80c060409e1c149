package main

import (
	"strings"
	"unicode/utf8"
)

// maxCommentLine is the maximum number of characters of a comment line.
const maxCommentLine = 120

// wrapComments splits the comment lines of Go code that have more than maxCommentLine characters, because the plugins
// generate such lines. A word is never split, so a line with a longer word stays longer.
func wrapComments(code string) string {
	var out strings.Builder
	for line := range strings.Lines(code) {
		text := strings.TrimLeft(line, "\t")
		if !strings.HasPrefix(text, "// ") || utf8.RuneCountInString(strings.TrimSuffix(line, "\n")) <= maxCommentLine {
			out.WriteString(line)
			continue
		}
		wrapComment(&out, line[:len(line)-len(text)]+"//", strings.Fields(text)[1:])
	}
	return out.String()
}

// wrapComment writes the words in lines that begin with prefix.
func wrapComment(out *strings.Builder, prefix string, words []string) {
	length := 0
	for _, word := range words {
		n := 1 + utf8.RuneCountInString(word)
		if length > 0 && length+n > maxCommentLine {
			out.WriteString("\n")
			length = 0
		}
		if length == 0 {
			out.WriteString(prefix)
			length = len(prefix)
		}
		out.WriteString(" " + word)
		length += n
	}
	out.WriteString("\n")
}
