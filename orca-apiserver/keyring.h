/* master.key, and the change from one to the next.
 *
 *   KEY_DIR/apiserver/master.key        64 hex digits: 256 bits
 *   KEY_DIR/apiserver/master.key.next   made for a rotation, before anything is sealed with it
 *
 * A key's id is a part of its hash: every record says which key sealed it, and the record /secrets/key (in the same transaction as all re-sealed
 * ones) which key is current. So whatever moment a rotation was cut off at, the two files hold the key, and the store says which it is:
 *
 *   files                        /secrets/key says     it was cut off          what follows
 *   master.key                   master.key            not under way           -
 *   master.key, master.key.next  master.key            before the transaction  the next rotation takes master.key.next
 *   master.key, master.key.next  master.key.next       after it                master.key.next is renamed to master.key, when that is seen
 *
 * A transaction of a process that died, or of which nothing was heard in time, may still land: a rotation first writes /secrets/key anew, which every
 * other one is conditioned on, and so does each new value while there is a next key.
 * Threads: the loop's. Blocking I/O of two small files. */
#ifndef ORCA_APISERVER_KEYRING_H
#define ORCA_APISERVER_KEYRING_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/crypto/crypto.h"
#include "common/err.h"

#define KEYRING_ID_LEN 16

struct keyring_key {
  bool there;
  char id[KEYRING_ID_LEN + 1];
  uint8_t key[CRYPTO_KEY_LEN];
};
struct keyring {
  char dir[PATH_MAX - 32]; /* KEY_DIR/apiserver */
  struct keyring_key master, next;
  bool rotating;    /* a rotation of this process is under way: nothing else is sealed */
  unsigned sealing; /* changes on their way: no rotation begins */
};

/* Without master.key: an empty one. -1: it is there, and is no key, or others can read it. */
int keyring_open(struct keyring *ring, const char *key_dir, struct err *err);
void keyring_wipe(struct keyring *ring);
/* NULL: not here. */
const struct keyring_key *keyring_find(const struct keyring *ring, const char *id);
/* What new records are sealed with: the store's current one ("" when it names none yet: master.key). */
const struct keyring_key *keyring_current(const struct keyring *ring, const char *current, struct err *err);
/* Makes and keeps master.key.next, durably, unless it is there. */
int keyring_make_next(struct keyring *ring, struct err *err);
/* The store names this one: it becomes master.key, when it was the next. -1: it is used, but the file could not be renamed. */
int keyring_settle(struct keyring *ring, const char *current, struct err *err);

#endif
