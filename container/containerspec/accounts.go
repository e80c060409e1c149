package containerspec

import (
	"bytes"
	"errors"
	"io/fs"
	"slices"

	"github.com/criserver/criserver/internal/rootpath"
	"github.com/criserver/criserver/internal/userns"
	"github.com/moby/sys/user"
)

// maxAccountFile limits /etc/passwd and /etc/group of an image, in bytes.
const maxAccountFile = 1 << 20

// Identity is the user that the first process of a container runs as.
type Identity struct {
	UID, GID uint32
	Groups   []uint32 // sorted, with GID
	Home     string
}

// Accounts are the users and groups in the account files of a root file system.
type Accounts struct {
	users  []user.User
	groups []user.Group
}

// ReadAccounts reads /etc/passwd and /etc/group without following links out of rootfs.
// A missing file has no entries.
func ReadAccounts(rootfs string) (Accounts, error) {
	passwd, err := readOptional(rootfs, "/etc/passwd")
	if err != nil {
		return Accounts{}, invalid("the image's /etc/passwd: %v", err)
	}
	group, err := readOptional(rootfs, "/etc/group")
	if err != nil {
		return Accounts{}, invalid("the image's /etc/group: %v", err)
	}
	return parseAccounts(passwd, group)
}

func parseAccounts(passwd, group []byte) (a Accounts, err error) {
	if a.users, err = user.ParsePasswdFilter(bytes.NewReader(passwd), nil); err != nil {
		return a, invalid("the image's /etc/passwd: %v", err)
	}
	if a.groups, err = user.ParseGroupFilter(bytes.NewReader(group), nil); err != nil {
		return a, invalid("the image's /etc/group: %v", err)
	}
	return a, nil
}

func readOptional(rootfs, path string) ([]byte, error) {
	b, err := rootpath.ReadFile(rootfs, path, maxAccountFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

// Identify looks up a user, whose Account is set. Errors are ErrInvalidArgument.
func (a Accounts) Identify(u User) (Identity, error) {
	found, err := a.user(*u.Account, u.MustExist)
	if err != nil {
		return Identity{}, err
	}
	gid := int64(found.Gid)
	if u.Group != nil {
		if gid, err = a.group(*u.Group); err != nil {
			return Identity{}, err
		}
	}
	if !validID(int64(found.Uid)) || !validID(gid) {
		return Identity{}, invalid("user %q: uid %d and gid %d must be from 0 to %d", u.Account, found.Uid, gid, maxID)
	}
	id := Identity{UID: uint32(found.Uid), GID: uint32(gid), Home: found.Home}
	id.Groups, err = a.supplementaryGroups(u, found.Name, id.GID)
	return id, err
}

// user returns the entry of an account. An id needs no entry unless mustExist is true.
func (a Accounts) user(ref AccountRef, mustExist bool) (user.User, error) {
	for _, u := range a.users {
		if ref.Name == "" && u.Uid == int(ref.ID) || ref.Name != "" && u.Name == ref.Name {
			return u, nil
		}
	}
	if ref.Name != "" || mustExist {
		return user.User{}, invalid("user %q is not in the image's /etc/passwd", ref)
	}
	return user.User{Uid: int(ref.ID), Home: "/"}, nil
}

func (a Accounts) group(ref AccountRef) (int64, error) {
	if ref.Name == "" {
		return int64(ref.ID), nil
	}
	for _, g := range a.groups {
		if g.Name == ref.Name {
			return int64(g.Gid), nil
		}
	}
	return 0, invalid("group %q is not in the image's /etc/group", ref)
}

// supplementaryGroups returns the requested groups and, if the policy is Merge, the
// groups of which the account is a member in the image. The primary group is always
// included: otherwise a process could leave the group by changing its gid, and escape
// the permissions that deny something to the group (CVE-2022-2995).
func (a Accounts) supplementaryGroups(u User, name string, gid uint32) ([]uint32, error) {
	groups := append([]uint32{gid}, u.SupplementalGroups...)
	if u.MergeGroups && name != "" {
		for _, g := range a.groups {
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

// CheckMapped returns an error if the user namespace with these maps does not contain
// all ids. Empty maps stand for the user namespace of the host, which contains all ids.
func (id Identity) CheckMapped(maps userns.Maps) error {
	if len(maps.UIDs)+len(maps.GIDs) == 0 {
		return nil
	}
	if _, ok := userns.HostID(maps.UIDs, id.UID); !ok {
		return invalid("config.linux.security_context.run_as_user or the image's USER: uid %d is not mapped in the pod's user namespace", id.UID)
	}
	for _, g := range append([]uint32{id.GID}, id.Groups...) {
		if _, ok := userns.HostID(maps.GIDs, g); !ok {
			return invalid("config.linux.security_context.run_as_group, supplemental_groups or the image's: gid %d is not mapped in the pod's user namespace", g)
		}
	}
	return nil
}
