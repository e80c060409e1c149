package wire

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

var testStrings = []string{"", "plain", `quote " and \ slash`, "line\nbreak\ttab\x00\x1f\x7f", "é 世界 😀", "\xff\xfe broken", "</script>&"}

func TestSpecFromJSON(t *testing.T) {
	for _, s := range testStrings {
		want := Spec{
			Version: Version, ID: s, RunDir: "/run/" + s, Bundle: s, ExitFile: s, Runtime: []string{s, "b"}, CreateArgs: []string{"a", s, "c"},
			RuntimeEnv: []string{"A=" + s}, LogPath: s, RestoreImages: s, RestoreArgs: []string{s}, Terminal: true, Stdin: true, StdinOnce: true,
		}
		b, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		// Decode with encoding/json, which replaces invalid UTF-8.
		want = Spec{}
		if err := json.Unmarshal(b, &want); err != nil {
			t.Fatal(err)
		}
		got, err := DecodeSpec(b)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", b, got, err)
		}
	}
}

// TestEveryFieldIsDecoded checks that the decoder knows every field of the types that it decodes.
// An unknown field would silently stay zero.
func TestEveryFieldIsDecoded(t *testing.T) {
	var spec Spec
	fill(reflect.ValueOf(&spec).Elem())
	b, _ := json.Marshal(spec)
	if got, err := DecodeSpec(b); err != nil || !reflect.DeepEqual(got, spec) {
		t.Errorf("spec: %+v, %v", got, err)
	}
	var q Request
	fill(reflect.ValueOf(&q).Elem())
	b, _ = json.Marshal(q)
	if got, err := DecodeRequest(b); err != nil || got != q {
		t.Errorf("request: %+v, %v", got, err)
	}
	var e Exit
	fill(reflect.ValueOf(&e).Elem())
	var got Exit
	if err := json.Unmarshal(AppendExit(nil, &e), &got); err != nil || got != e {
		t.Errorf("exit: %+v, %v", got, err)
	}
}

// fill sets every field to a value that is not zero.
func fill(v reflect.Value) {
	for i := range v.NumField() {
		switch f := v.Field(i); f.Kind() {
		case reflect.String:
			f.SetString(v.Type().Field(i).Name)
		case reflect.Bool:
			f.SetBool(true)
		case reflect.Int, reflect.Int32, reflect.Int64:
			f.SetInt(int64(i + 1))
		case reflect.Uint16, reflect.Uint32:
			f.SetUint(uint64(i + 1))
		case reflect.Slice:
			f.Set(reflect.ValueOf([]string{v.Type().Field(i).Name, "more"}))
		default:
			panic("unsupported kind: " + f.Kind().String())
		}
	}
}

func TestAnswers(t *testing.T) {
	for _, s := range append(testStrings, strings.Repeat("\x01é\n", 5000)) {
		b := AppendStarted(nil, 42, 1<<63, s)
		if len(b) > MaxStarted {
			t.Errorf("answer has %d bytes", len(b))
		}
		var started struct {
			Init struct {
				PID   int    `json:"pid"`
				Start uint64 `json:"start"`
			} `json:"init"`
			Error string `json:"error"`
		}
		if err := json.Unmarshal(b, &started); err != nil {
			t.Errorf("%s: %v", b, err)
		}
		if started.Init.PID != 42 || started.Init.Start != 1<<63 || !strings.HasPrefix(string([]rune(s)), started.Error) || (started.Error == "") != (s == "") {
			t.Errorf("%s: %+v", b, started)
		}
		var reply Reply
		if err := json.Unmarshal(AppendReply(nil, s), &reply); err != nil || (reply.Error == "") != (s == "") {
			t.Errorf("reply %q: %+v, %v", s, reply, err)
		}
	}
}

func TestLogLine(t *testing.T) {
	tests := []struct{ line, level, msg string }{
		{`{"level":"error","msg":"a \"b\" \u00e9 \ud83d\ude00","time":"2026"}`, "error", `a "b" é 😀`},
		{` { "nested" : {"msg":[1,-2.5e3,null,{"x":[]}], "t":true} , "msg" : "m" } `, "", "m"},
		{`{}`, "", ""},
	}
	for _, tt := range tests {
		level, msg, err := DecodeLogLine([]byte(tt.line))
		if err != nil || level != tt.level || msg != tt.msg {
			t.Errorf("%s: %q, %q, %v", tt.line, level, msg, err)
		}
	}
	for _, bad := range []string{``, `x`, `{`, `{"msg"`, `{"msg":`, `{"msg":"`, `{"msg":"a}`, `{"msg":"\u12"}`, `{"msg":"\x"}`, `{"a":1}x`, `[]`, `{"a":nul}`, `{"msg":"` + "\x01" + `"}`, `{"a":` + strings.Repeat("[", 100)} {
		if _, _, err := DecodeLogLine([]byte(bad)); err == nil {
			t.Errorf("%s: no error", bad)
		}
	}
}

// FuzzDecode checks that the decoder returns the result of encoding/json for each input that
// encoding/json accepts, and that no input crashes the decoder.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"op":"resize","width":80,"height":24,"stdin":true,"x":{"y":[1,2,"\ud800\u0041"]}}`))
	f.Add([]byte(`{"level":"error","msg":"a\n\"b\"\\"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = DecodeSpec(b)
		_, _ = DecodeRequest(b)
		level, msg, err := DecodeLogLine(b)
		var want struct {
			Level, Msg *string
		}
		if err != nil || json.Unmarshal(b, &want) != nil {
			return
		}
		// encoding/json also accepts keys in other cases, and uses the last of several equal
		// keys. So the results are comparable only if each key occurs once.
		if strings.Count(strings.ToLower(string(b)), "level") != 1 || strings.Count(strings.ToLower(string(b)), "msg") != 1 {
			return
		}
		if strings.Contains(string(b), `"level"`) && want.Level != nil && *want.Level != level {
			t.Errorf("level %q, want %q", level, *want.Level)
		}
		if strings.Contains(string(b), `"msg"`) && want.Msg != nil && *want.Msg != msg {
			t.Errorf("msg %q, want %q", msg, *want.Msg)
		}
	})
}

func TestDecodeExitStatus(t *testing.T) {
	for answer, want := range map[string]struct {
		code  int32
		known bool
	}{
		`{"id":"c","exitStatus":137}` + "\n": {137, true},
		`{"exitStatus":0,"more":{"a":[1]}}`:  {0, true},
		`{"exitStatus":256}`:                 {0, false},
		`{"exitStatus":-1}`:                  {0, false},
		`{"id":"c"}`:                         {0, false},
		`{"exitStatus":"0"}`:                 {0, false},
		`malformed`:                          {0, false},
		``:                                   {0, false},
	} {
		if code, known := DecodeExitStatus([]byte(answer)); code != want.code || known != want.known {
			t.Errorf("%q: %d, %v", answer, code, known)
		}
	}
}
