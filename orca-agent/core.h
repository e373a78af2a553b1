/* The agent's decisions: what is to be done so that this node's containers equal what is assigned to it.
 *
 * Pure: agent_core_step() takes one event and the time, changes the state and appends actions; the shell (agent.c) carries them out and
 * answers each with an event that names its `op`. No I/O, clock, threads or globals. An action's answer may be late, lost with
 * Docker, doubled or wrong: facts come from what Docker says last, every decision starts from facts, and one instance has at most one action
 * in flight. A container's name is made of its instance, so Docker itself refuses a second one.
 *
 *   what Docker has     wanted: run                                          wanted: stop, or nothing
 *   UNKNOWN             inspect                                              inspect
 *   NONE                image, network, prepare, create                      gone
 *   CREATED             start (remove when it is not the wanted epoch)       remove
 *   RUNNING             leave (stop when not the wanted epoch, not live)     stop; kill when that hangs
 *   EXITED              start as the restart policy and the backoff say      remove
 *                       (a job's is kept as it is: its end is its result)
 *   BROKEN              remove                                               remove
 *
 * Ownership: events are borrowed for the step; actions hold copies. */
#ifndef ORCA_AGENT_CORE_H
#define ORCA_AGENT_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/spec/ids.h"
#include "orca-agent/backoff.h"
#include "orca-agent/container.h"
#include "proto/model.pb-c.h"
#include "proto/node.pb-c.h"

#define AGENT_IMAGE_MAX 512
#define AGENT_COMPARE_EVERY INT64_C(30000000000)
#define AGENT_MAX_INSTANCES 10000u

struct agent_now {
  int64_t mono_ns, wall_ms;
};

enum agent_want {
  AGENT_WANT_KEEP, /* found by its labels, and no master has said anything yet: keep it as it is, restart it when it crashes */
  AGENT_WANT_RUN,
  AGENT_WANT_STOP, /* stop, remove, say so, remember */
  AGENT_WANT_NONE, /* not assigned: stop, remove, forget */
};

enum agent_op {
  AGENT_OP_NONE,
  AGENT_OP_PREPARE, /* volumes, files, host paths */
  AGENT_OP_CREATE,
  AGENT_OP_START,
  AGENT_OP_INSPECT,
  AGENT_OP_STOP,
  AGENT_OP_KILL,
  AGENT_OP_REMOVE,
};

struct agent_verdict {
  bool known, started, ready;
  char reason[160];
};

struct agent_instance {
  char id[INSTANCE_ID_MAX];
  char project[64], service[64];
  uint64_t number;
  enum agent_want want;
  Node__Assignment *assigned; /* NULL with KEEP and NONE */
  struct agent_container c;   /* facts */

  enum agent_op op; /* in flight */
  uint64_t op_id;
  bool died_meanwhile;  /* a die event came while op START was in flight */
  bool other_meanwhile; /* something else was assigned while op was in flight */
  bool look_failed;     /* Docker answered the last look with an error */
  bool name_taken;      /* it refused to create the container, because of its name: the look that follows says why */
  uint64_t touched;     /* step number of the last change of facts or op: an older list does not know better */
  bool queued;          /* waits for a slot */
  uint64_t queued_at;

  bool past_known; /* what was reported of it before this process is taken over, or there was nothing */
  bool checked;    /* what is assigned is what somebody could have written */
  bool prepared, recreate, gone;
  bool ran;                /* of a job: its container has been started, and never is again */
  int64_t exit_handled_ns; /* Docker's time of the last exit that was acted upon */
  uint64_t seen_seq;       /* step of the last list that had it */
  uint64_t assigned_seq;   /* step of the last desired state that had it */
  bool restart_wanted;     /* its liveness probe or the loss of its network asks for it */
  bool forced_restart;     /* the exit that follows was ours: it starts again whatever the exit code */
  char restart_reason[200];
  struct agent_backoff crash, failure;
  int64_t next_try;  /* mono; 0: at once */
  int64_t run_since; /* mono */
  unsigned stop_tries, address_tries;
  uint32_t restarts;
  int32_t last_exit; /* how it ended the last time; with exit_handled_ns */
  bool last_oom;
  int64_t words_ns; /* the end whose last lines are being read; 0: none. Nothing is removed meanwhile */
  char *last_lines;
  size_t last_lines_len;
  int64_t ended_ms;
  char ended_by[200];
  struct agent_verdict verdict; /* about the running container */

  Model__Phase phase; /* what is reported, from here on */
  bool ready, started;
  char reason[256];
  int64_t since_ms, ready_since_ms, next_try_ms;
  char progress[64];
  uint64_t status_seq; /* grows with every change of what is reported */
};

enum agent_image_state { AGENT_IMAGE_NEW, AGENT_IMAGE_LOOKING, AGENT_IMAGE_PULLING, AGENT_IMAGE_READY, AGENT_IMAGE_FAILED };

struct agent_image { /* of one revision */
  char project[64], service[64];
  uint64_t revision;
  int64_t created_ms; /* of the revision, with its hash: the number may be another's, of a service that is gone */
  char spec_hash[65];
  char ref[AGENT_IMAGE_MAX]; /* what is looked for: as written, or as the revision's status says */
  bool given;                /* ref is the revision's resolved image */
  bool implicit;             /* its pull is not the spec's word, but its tag's or a redeploy's: a local build may stand in */
  bool pulled;               /* this round's pull has been made, or failed and `fallback` */
  bool fallback;
  Model__PullPolicy policy;
  enum agent_image_state state;
  uint64_t op_id;
  char run[AGENT_IMAGE_MAX]; /* what containers are created from */
  char progress[64], error[256];
  struct agent_backoff failure;
  int64_t next_try;
};

enum agent_network_state { AGENT_NETWORK_NEW, AGENT_NETWORK_CREATING, AGENT_NETWORK_READY, AGENT_NETWORK_FAILED, AGENT_NETWORK_REMOVING };

struct agent_network {
  char name[AGENT_NAME_MAX];
  char project[64];
  bool ours; /* made by this node's agent: it may remove it */
  enum agent_network_state state;
  uint64_t op_id;
  char error[256];
  struct agent_backoff failure;
  int64_t next_try;
};

enum agent_docker_state { AGENT_DOCKER_DOWN, AGENT_DOCKER_LISTING, AGENT_DOCKER_UP };

struct agent_core {
  char node[64], cluster_id[80], cluster8[16];
  char address[64]; /* the node's: where what is on its own network is reached; set by the shell */
  unsigned slots;   /* creates and starts at once */
  unsigned busy_slots;
  struct agent_instance **instances; /* sorted by id */
  size_t count, size;
  struct agent_image **images;
  size_t image_count, image_size;
  struct agent_network **networks;
  size_t network_count, network_size;
  Model__ClusterSpec *cluster; /* NULL until told: allows nothing special */
  bool have_desired;           /* all of it, once */
  uint64_t full_since;         /* step of the last full desired state's first part */
  uint64_t desired_version;
  enum agent_docker_state docker;
  bool ever_listed; /* what runs here is known since this process began */
  char docker_error[256];
  uint64_t seq, next_op, status_seq, list_op, list_seq;
  int64_t compare_at;
};

/* ---- events ---- */

enum agent_event_kind {
  AGENT_EV_DOCKER_UP,
  AGENT_EV_DOCKER_DOWN,    /* text: why */
  AGENT_EV_LISTED,         /* op, code, containers; networks */
  AGENT_EV_DESIRED,        /* desired */
  AGENT_EV_DONE,           /* op of an instance: code, http, text; container (inspect), text = id (create) */
  AGENT_EV_CONTAINER,      /* Docker says: what, container_id, time_ns, exit_code */
  AGENT_EV_IMAGE_LOOKED,   /* op, code; image_id, image_digest */
  AGENT_EV_IMAGE_PULLED,   /* op, code, text */
  AGENT_EV_IMAGE_PROGRESS, /* op, text */
  AGENT_EV_NETWORK_DONE,   /* op, code, text; ours */
  AGENT_EV_WORDS,          /* instance, time_ns, text, text_len */
  AGENT_EV_VERDICT,        /* instance, container_id, started_ms, verdict, live */
  AGENT_EV_TICK,
};

enum agent_container_event { AGENT_CE_START, AGENT_CE_DIE, AGENT_CE_OOM, AGENT_CE_DESTROY };

struct agent_found_network {
  char name[AGENT_NAME_MAX], project[64];
  bool ours;
  char id[AGENT_CONTAINER_ID]; /* for the shell: names of networks are not unique in Docker */
  int64_t created_ns;
};

struct agent_event {
  enum agent_event_kind kind;
  uint64_t op;
  enum err_code code; /* ERR_NONE: it went well */
  const char *text;
  size_t text_len; /* of WORDS */
  const struct agent_container *containers;
  size_t container_count;
  const struct agent_found_network *networks;
  size_t network_count;
  const Node__DesiredState *desired;
  enum agent_container_event what;
  const char *container_id;
  int64_t time_ns;
  int32_t exit_code;
  const char *image_id, *image_digest; /* "sha256:…"; "NAME@sha256:…" or NULL for a local image */
  bool ours;
  const char *instance;
  int64_t started_ms; /* 0: not said */
  struct agent_verdict verdict;
  bool live;
};

/* ---- actions ---- */

enum agent_action_kind {
  AGENT_ACT_LIST,           /* containers and networks → LISTED */
  AGENT_ACT_INSTANCE,       /* op_kind on instance; container: its id, or its name when the id is not known → DONE */
  AGENT_ACT_IMAGE_LOOK,     /* name → IMAGE_LOOKED */
  AGENT_ACT_IMAGE_PULL,     /* name → IMAGE_PROGRESS…, IMAGE_PULLED */
  AGENT_ACT_NETWORK_CREATE, /* name, project → NETWORK_DONE */
  AGENT_ACT_NETWORK_REMOVE, /* name → NETWORK_DONE */
  AGENT_ACT_REMOVE_STRAY,   /* container: ours, and a second one of an instance; no answer */
  AGENT_ACT_RESOLVED,       /* project, service, number = revision, name = image: tell the masters */
  AGENT_ACT_GONE,           /* instance: nothing of it is left; tell the masters, drop its files */
  AGENT_ACT_WORDS,          /* instance, container; number: when it ended, ns → WORDS */
  AGENT_ACT_EVENT,          /* for the history: name = kind, text, severity, instance */
};

struct agent_action {
  enum agent_action_kind kind;
  enum agent_op op_kind;
  uint64_t op;
  char instance[INSTANCE_ID_MAX];
  char container[AGENT_NAME_MAX];
  char name[AGENT_IMAGE_MAX];
  char project[64], service[64];
  uint64_t number;
  char text[256];
  const char *severity; /* static */
  uint64_t grace_ms;    /* STOP */
};

struct agent_actions {
  struct agent_action *list;
  size_t count, size;
  bool failed; /* memory ended: some are missing; the next comparison makes up for it */
};
void agent_actions_fini(struct agent_actions *actions);

/* ---- the core ---- */

int agent_core_init(struct agent_core *core, const char *node, const char *cluster_id, unsigned slots, struct err *err);
void agent_core_fini(struct agent_core *core);
void agent_core_step(struct agent_core *core, const struct agent_event *ev, struct agent_now now, struct agent_actions *out);
/* The mono time at which it wants an AGENT_EV_TICK; INT64_MAX: never. */
int64_t agent_core_next(const struct agent_core *core);

struct agent_instance *agent_core_find(const struct agent_core *core, const char *id);
struct agent_instance *agent_core_find_container(const struct agent_core *core, const char *container_id);
const struct agent_image *agent_core_image(const struct agent_core *core, const struct agent_instance *i);
/* Everything that runs here has been looked at (or Docker is known to be down): a first report would not lie. */
bool agent_core_settled(const struct agent_core *core);

/* The spec of what is assigned; NULL when none is known. */
const Model__ServiceSpec *agent_instance_spec(const struct agent_instance *i);
/* What follows an end, by what is assigned, else by the container's own label. A job's run is started once, whatever its spec says. */
Model__RestartPolicy agent_instance_restart(const struct agent_instance *i);
/* One that its spec names and nobody has set; NULL: none. */
const Model__SecretVersion *agent_instance_missing_secret(const struct agent_instance *i);
bool agent_instance_probed(const struct agent_instance *i);
/* "orca-CLUSTERID8-NODE-PROJECT-SERVICE-NUMBER" */
void agent_container_name(const struct agent_core *core, const struct agent_instance *i, char out[AGENT_NAME_MAX]);
/* "orca-CLUSTERID8-PROJECT[-NETWORK]"; "" for the host's. */
void agent_network_name(const struct agent_core *core, const Model__ServiceSpec *spec, char out[AGENT_NAME_MAX]);
/* "orca-CLUSTERID8-PROJECT-SOURCE" */
void agent_volume_name(const struct agent_core *core, const char *project, const char *source, char out[AGENT_NAME_MAX]);

#endif
