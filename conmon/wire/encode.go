package wire

import (
	"strconv"
	"unicode/utf8"
)

// AppendStarted appends the monitor's answer to its Spec or to OpStart as a JSON line: the
// container's first process, or the reason why create or start failed. It truncates the reason so
// that the line fits MaxStarted.
func AppendStarted(dst []byte, pid int, start uint64, failure string) []byte {
	dst = append(dst, `{"init":{"pid":`...)
	dst = strconv.AppendInt(dst, int64(pid), 10)
	dst = append(dst, `,"start":`...)
	dst = strconv.AppendUint(dst, start, 10)
	dst = append(dst, '}')
	if failure != "" {
		dst = append(dst, `,"error":`...)
		dst = appendString(dst, truncate(failure, MaxStarted-128))
	}
	return append(dst, '}', '\n')
}

// truncate returns the longest prefix of s that needs at most n bytes as a JSON string.
func truncate(s string, n int) string {
	for i, r := range s {
		switch {
		case r == '"' || r == '\\' || r == '\n' || r == '\t':
			n -= 2
		case r < ' ' || r == 0x7f:
			n -= 6
		default:
			n -= utf8.RuneLen(r) // invalid UTF-8 counts as U+FFFD
		}
		if n < 0 {
			return s[:i]
		}
	}
	return s
}

// AppendReply appends a Reply as a JSON line.
func AppendReply(dst []byte, failure string) []byte {
	if failure == "" {
		return append(dst, "{}\n"...)
	}
	dst = append(dst, `{"error":`...)
	dst = appendString(dst, failure)
	return append(dst, '}', '\n')
}

// AppendExit appends an exit record as a JSON line.
func AppendExit(dst []byte, e *Exit) []byte {
	dst = append(dst, `{"version":`...)
	dst = strconv.AppendInt(dst, int64(e.Version), 10)
	dst = append(dst, `,"id":`...)
	dst = appendString(dst, e.ID)
	dst = appendInt(dst, "exitCode", int64(e.ExitCode))
	if e.Unknown {
		dst = append(dst, `,"unknown":true`...)
	}
	if e.Signal != 0 {
		dst = appendInt(dst, "signal", int64(e.Signal))
	}
	if e.OOMKilled {
		dst = append(dst, `,"oomKilled":true`...)
	}
	dst = appendInt(dst, "finishedAt", e.FinishedAt)
	if e.LogLost != 0 {
		dst = appendInt(dst, "logLost", e.LogLost)
	}
	return append(dst, '}', '\n')
}

func appendInt(dst []byte, key string, v int64) []byte {
	dst = append(dst, ',', '"')
	dst = append(dst, key...)
	dst = append(dst, '"', ':')
	return strconv.AppendInt(dst, v, 10)
}

// appendString appends s as a JSON string. Invalid UTF-8 becomes U+FFFD, as in encoding/json.
func appendString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			dst = append(dst, '\\', byte(r))
		case r == '\n':
			dst = append(dst, '\\', 'n')
		case r == '\t':
			dst = append(dst, '\\', 't')
		case r < ' ' || r == 0x7f:
			dst = append(dst, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
		default:
			dst = utf8.AppendRune(dst, r)
		}
	}
	return append(dst, '"')
}
