package container

import (
	"bytes"
	"errors"
	"io/fs"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/criserver/criserver/internal/rootpath"
	"github.com/moby/sys/user"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	// maxID: ids above it are taken for negative by programs of 32 bits, and
	// the greatest of all means "no id" to the kernel.
	maxID = math.MaxInt32
	// maxUserFile bounds /etc/passwd and /etc/group of an image, in bytes.
	maxUserFile = 1 << 20
)

func validID(id int64) bool { return id >= 0 && id <= maxID }

// identity is who the first process runs as.
type identity struct {
	uid, gid uint32
	groups   []uint32 // sorted; the primary one among them
	home     string
}

// userFiles are the image's account files.
type userFiles struct {
	users  []user.User
	groups []user.Group
}

// readUserFiles reads them without following links out of rootfs. A missing
// file has no entries.
func readUserFiles(rootfs string) (userFiles, error) {
	passwd, err := readOptional(rootfs, "/etc/passwd")
	if err != nil {
		return userFiles{}, invalid("the image's /etc/passwd: %v", err)
	}
	group, err := readOptional(rootfs, "/etc/group")
	if err != nil {
		return userFiles{}, invalid("the image's /etc/group: %v", err)
	}
	return parseUserFiles(passwd, group)
}

func parseUserFiles(passwd, group []byte) (f userFiles, err error) {
	if f.users, err = user.ParsePasswdFilter(bytes.NewReader(passwd), nil); err != nil {
		return f, invalid("the image's /etc/passwd: %v", err)
	}
	if f.groups, err = user.ParseGroupFilter(bytes.NewReader(group), nil); err != nil {
		return f, invalid("the image's /etc/group: %v", err)
	}
	return f, nil
}

func readOptional(rootfs, path string) ([]byte, error) {
	b, err := rootpath.ReadFile(rootfs, path, maxUserFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

// identify applies the CRI's rules: the request's user and group, else the
// image's USER, in any of its forms. A number is always an id and never looked
// up as a name: runAsNonRoot has judged it by its value.
func (f userFiles) identify(sc *cri.LinuxContainerSecurityContext, imageUser string) (identity, error) {
	var who, group string
	switch {
	case sc.GetRunAsUser() != nil:
		who = strconv.FormatInt(sc.GetRunAsUser().GetValue(), 10)
	case sc.GetRunAsUsername() != "":
		who = sc.GetRunAsUsername()
		if strings.Contains(who, ":") {
			return identity{}, invalid("config.linux.security_context.run_as_username %q must not contain ':'", who)
		}
	default:
		who, group, _ = strings.Cut(imageUser, ":")
	}
	if sc.GetRunAsGroup() != nil {
		group = strconv.FormatInt(sc.GetRunAsGroup().GetValue(), 10)
	}
	u, err := f.user(who, sc.GetRunAsUsername() != "")
	if err != nil {
		return identity{}, err
	}
	gid := int64(u.Gid)
	if group != "" {
		if gid, err = f.group(group); err != nil {
			return identity{}, err
		}
	}
	if !validID(int64(u.Uid)) || !validID(gid) {
		return identity{}, invalid("user %q: uid %d and gid %d must be from 0 to %d", who, u.Uid, gid, maxID)
	}
	id := identity{uid: uint32(u.Uid), gid: uint32(gid), home: u.Home}
	id.groups, err = f.supplementary(sc, u.Name, id.gid)
	return id, err
}

// user finds an account. A number without one is fine; "" is root.
func (f userFiles) user(who string, mustExist bool) (user.User, error) {
	if who == "" {
		who = "0"
	}
	uid, number, err := parseID(who)
	if err != nil {
		return user.User{}, err
	}
	for _, u := range f.users {
		if number && u.Uid == int(uid) || !number && u.Name == who {
			return u, nil
		}
	}
	if !number || mustExist {
		return user.User{}, invalid("user %q is not in the image's /etc/passwd", who)
	}
	return user.User{Uid: int(uid), Home: "/"}, nil
}

func (f userFiles) group(name string) (int64, error) {
	gid, number, err := parseID(name)
	if number || err != nil {
		return gid, err
	}
	for _, g := range f.groups {
		if g.Name == name {
			return int64(g.Gid), nil
		}
	}
	return 0, invalid("group %q is not in the image's /etc/group", name)
}

// parseID says whether s is a number; one out of range is an error, and never
// wraps to another id (CVE-2024-40635).
func parseID(s string) (id int64, number bool, err error) {
	if s == "" {
		return 0, false, nil
	}
	if strings.Trim(s, "0123456789") != "" && strings.Trim(s, "-0123456789") != "" {
		return 0, false, nil
	}
	id, err = strconv.ParseInt(s, 10, 64)
	if err != nil || !validID(id) {
		return 0, true, invalid("id %q must be from 0 to %d", s, maxID)
	}
	return id, true, nil
}

// ImageUser is the user that USER of an image names: an id or a name. Both are
// unset if USER is empty.
type ImageUser struct {
	ID   int64
	IsID bool // ID is set and Name is ""
	Name string
}

// ParseImageUser reads USER of an image, which can have a group after a colon. It
// reads numbers as the creation of a container does, so that runAsNonRoot, which
// the kubelet checks with this result, holds for the process. "+5" is a name. A
// number that is out of range is a name, too: no container runs with it.
func ParseImageUser(user string) ImageUser {
	user, _, _ = strings.Cut(user, ":")
	if id, number, err := parseID(user); number && err == nil {
		return ImageUser{ID: id, IsID: true}
	}
	return ImageUser{Name: user}
}

// supplementary are the groups asked for and, unless the policy is Strict, those
// that list the user in the image. The primary group is always among them: a
// process could else leave it by changing its gid, and with it the rules that
// deny that group something (CVE-2022-2995).
func (f userFiles) supplementary(sc *cri.LinuxContainerSecurityContext, name string, gid uint32) ([]uint32, error) {
	groups := []uint32{gid}
	for _, g := range sc.GetSupplementalGroups() {
		groups = append(groups, uint32(g))
	}
	if sc.GetSupplementalGroupsPolicy() == cri.SupplementalGroupsPolicy_Merge && name != "" {
		for _, g := range f.groups {
			if !slices.Contains(g.List, name) {
				continue
			}
			if !validID(int64(g.Gid)) {
				return nil, invalid("the image's /etc/group: gid %d of %q must be from 0 to %d", g.Gid, g.Name, maxID)
			}
			groups = append(groups, uint32(g.Gid))
		}
	}
	slices.Sort(groups)
	return slices.Compact(groups), nil
}
