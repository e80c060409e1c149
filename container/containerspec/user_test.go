package containerspec

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	testPasswd = "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1001::/home/alice:/bin/sh\n1234:x:0:0::/root:/bin/sh\nhuge:x:4294967295:1::/:\n+5:x:0:0::/root:/bin/sh\n"
	testGroup  = "root:x:0:\nteam:x:3000:alice\nops:x:3001:bob,alice\nbig:x:4294967295:bob\n"
)

func writeFile(t *testing.T, dir, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// accounts returns the accounts of a root file system with these account files.
func accounts(t *testing.T, passwd, group string) Accounts {
	t.Helper()
	root := t.TempDir()
	etc := filepath.Join(root, "etc")
	if err := os.Mkdir(etc, 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, etc, "passwd", passwd)
	writeFile(t, etc, "group", group)
	a, err := ReadAccounts(root)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// identify parses a request with this security context and looks up the user.
func identify(a Accounts, sc *cri.LinuxContainerSecurityContext, imageUser string) (Identity, error) {
	c := testConfig()
	c.Linux.SecurityContext = sc
	s, err := Parse(Request{Config: c, Pod: testPod()})
	if err != nil {
		return Identity{}, err
	}
	p, err := s.Process(ispec.ImageConfig{User: imageUser})
	if err != nil {
		return Identity{}, err
	}
	return a.Identify(p.User)
}

func TestIdentify(t *testing.T) {
	id := func(v int64) *cri.Int64Value { return &cri.Int64Value{Value: v} }
	for name, tc := range map[string]struct {
		sc     *cri.LinuxContainerSecurityContext
		image  string
		want   Identity
		reject bool
	}{
		"nothing":                  {want: Identity{0, 0, []uint32{0}, "/root"}},
		"image uid":                {image: "1000", want: Identity{1000, 1001, []uint32{1001, 3000, 3001}, "/home/alice"}},
		"image unknown uid":        {image: "77", want: Identity{77, 0, []uint32{0}, "/"}},
		"image name":               {image: "alice", want: Identity{1000, 1001, []uint32{1001, 3000, 3001}, "/home/alice"}},
		"image name:group":         {image: "alice:team", want: Identity{1000, 3000, []uint32{3000, 3001}, "/home/alice"}},
		"image uid:gid":            {image: "77:88", want: Identity{77, 88, []uint32{88}, "/"}},
		"image name:unknown gid":   {image: "alice:88", want: Identity{1000, 88, []uint32{88, 3000, 3001}, "/home/alice"}},
		"image empty group":        {image: "alice:", want: Identity{1000, 1001, []uint32{1001, 3000, 3001}, "/home/alice"}},
		"a number is never a name": {image: "1234", want: Identity{1234, 0, []uint32{0}, "/"}},
		"image unknown name":       {image: "bob", reject: true},
		"image unknown group":      {image: "alice:nogroup", reject: true},
		"uid too large":            {image: "4294967296", reject: true},
		"uid above int32":          {image: "2147483648", reject: true},
		"uid negative":             {image: "-1", reject: true},
		"gid too large":            {image: "1:99999999999999999999", reject: true},
		"uid of passwd too large":  {image: "huge", reject: true},
		"run_as_user":              {sc: &cri.LinuxContainerSecurityContext{RunAsUser: id(1000)}, image: "root:team", want: Identity{1000, 1001, []uint32{1001, 3000, 3001}, "/home/alice"}},
		"run_as_user and group":    {sc: &cri.LinuxContainerSecurityContext{RunAsUser: id(1000), RunAsGroup: id(5)}, want: Identity{1000, 5, []uint32{5, 3000, 3001}, "/home/alice"}},
		"run_as_username":          {sc: &cri.LinuxContainerSecurityContext{RunAsUsername: "alice"}, want: Identity{1000, 1001, []uint32{1001, 3000, 3001}, "/home/alice"}},
		"run_as_username unknown":  {sc: &cri.LinuxContainerSecurityContext{RunAsUsername: "77"}, reject: true},
		"run_as_username is uid":   {sc: &cri.LinuxContainerSecurityContext{RunAsUsername: "1000"}, want: Identity{1000, 1001, []uint32{1001, 3000, 3001}, "/home/alice"}},
		"run_as_username colon":    {sc: &cri.LinuxContainerSecurityContext{RunAsUsername: "alice:root"}, reject: true},
		"supplemental merged":      {sc: &cri.LinuxContainerSecurityContext{RunAsUser: id(1000), SupplementalGroups: []int64{9, 3000}}, want: Identity{1000, 1001, []uint32{9, 1001, 3000, 3001}, "/home/alice"}},
		"supplemental strict": {
			sc:   &cri.LinuxContainerSecurityContext{RunAsUser: id(1000), SupplementalGroups: []int64{9}, SupplementalGroupsPolicy: cri.SupplementalGroupsPolicy_Strict},
			want: Identity{1000, 1001, []uint32{9, 1001}, "/home/alice"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := identify(accounts(t, testPasswd, testGroup), tc.sc, tc.image)
			if tc.reject {
				if !errdefs.IsInvalidArgument(err) {
					t.Errorf("got %+v, %v", got, err)
				}
				return
			}
			if err != nil || got.UID != tc.want.UID || got.GID != tc.want.GID || got.Home != tc.want.Home || !slices.Equal(got.Groups, tc.want.Groups) {
				t.Errorf("got %+v, %v; want %+v", got, err, tc.want)
			}
		})
	}
}

func TestGroupOutOfRange(t *testing.T) {
	f := accounts(t, "bob:x:5:5::/:\n", testGroup)
	if _, err := identify(f, nil, "bob"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("got %v", err)
	}
}

func TestAccountFilesAreLimited(t *testing.T) {
	root := t.TempDir()
	if _, err := ReadAccounts(root); err != nil {
		t.Errorf("without account files: %v", err)
	}
	etc := filepath.Join(root, "etc")
	if err := os.Mkdir(etc, 0o755); err != nil {
		t.Fatal(err)
	}
	passwd := filepath.Join(etc, "passwd")
	if err := os.WriteFile(passwd, []byte(strings.Repeat("x:x:1:1::/:\n", maxAccountFile/12+1)), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadAccounts(root); !errdefs.IsInvalidArgument(err) {
		t.Errorf("too large: %v", err)
	}
	if err := os.Remove(passwd); err != nil {
		t.Fatal(err)
	}
	// ReadAccounts resolves a link inside the image, where the target does not exist.
	outside := filepath.Join(t.TempDir(), "passwd")
	if err := os.WriteFile(outside, []byte("evil:x:0:0::/:\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, passwd); err != nil {
		t.Fatal(err)
	}
	if f, err := ReadAccounts(root); err != nil || len(f.users) != 0 {
		t.Errorf("read %v, %v", f, err)
	}
}

func FuzzIdentify(f *testing.F) {
	f.Add("alice:team", testPasswd, testGroup)
	f.Add("0:-0", "a:::::", ":::")
	f.Fuzz(func(t *testing.T, who, passwd, group string) {
		files, err := parseAccounts([]byte(passwd), []byte(group))
		if err != nil {
			return
		}
		id, err := identify(files, nil, who)
		if err == nil && (id.UID > maxID || id.GID > maxID || !slices.Contains(id.Groups, id.GID)) {
			t.Errorf("%q: %+v", who, id)
		}
	})
}

// TestParseImageUserAgreesWithIdentify compares the user that ParseImageUser returns
// with the user that the first process of a container gets.
func TestParseImageUserAgreesWithIdentify(t *testing.T) {
	for user, want := range map[string]ImageUser{
		"":           {},
		":5":         {},
		"0":          {IsID: true},
		"-0":         {IsID: true},
		"007:1":      {ID: 7, IsID: true},
		"1234":       {ID: 1234, IsID: true}, // a name in /etc/passwd as well, of uid 0
		"+5":         {Name: "+5"},
		"-5":         {Name: "-5"},
		"4294967296": {Name: "4294967296"},
		"0x5":        {Name: "0x5"},
		"alice:team": {Name: "alice"},
	} {
		got := ParseImageUser(user)
		if got != want {
			t.Errorf("%q: got %+v, want %+v", user, got, want)
		}
		id, err := identify(accounts(t, testPasswd, testGroup), nil, user)
		if err == nil && got.IsID && int64(id.UID) != got.ID {
			t.Errorf("%q: the image status has uid %d, the container runs as uid %d", user, got.ID, id.UID)
		}
	}
}
