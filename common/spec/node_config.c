#include "common/spec/node_config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/spec/read_file.h"
#include "common/spec/spec_table.h"

#define NODE_TOML_MAX (256u << 10)
#define COUNT(a) (sizeof(a) / sizeof *(a))
#define AT(member) .offset = offsetof(struct node_config, member)
#define PORT(name_, member, default_, help_)                                                                                                         \
  { .name = name_, .kind = SPEC_INTEGER, AT(member), .min = 1, .max = 65535, .otherwise = default_, .help = help_ }

static spec_read_fn read_masters;

static const struct spec_choice roles[] = {{"master", NODE_MASTER, false, false}, {"worker", NODE_WORKER, false, false}, {NULL, 0, false, false}};
static const struct spec_choice backends[] = {{"raft", 0, false, false}, {"etcd", 1, true, false}, {NULL, 0, false, false}};

static const struct spec_key node_keys[] = {
    {.name = "name",
     .kind = SPEC_STRING,
     .flags = SPEC_NO_REFS,
     AT(name),
     .otherwise = "(the host name)",
     .check = spec_check_name,
     .help = "The node's name, unique in the cluster."},
    {.name = "address",
     .kind = SPEC_STRING,
     .flags = SPEC_NO_REFS,
     AT(address),
     .otherwise = "\"127.0.0.1\"",
     .check = spec_check_host,
     .help = "What the other nodes reach it by; loopback while there is one node."},
    {.name = "role",
     .kind = SPEC_CHOICE,
     .flags = SPEC_NO_REFS,
     AT(role),
     .otherwise = "\"master\"",
     .choices = roles,
     .help = "A master runs every daemon; a worker the agent, the proxy and the keeper."},
    {.name = "state_dir",
     .kind = SPEC_STRING,
     .flags = SPEC_NO_REFS,
     AT(state_dir),
     .otherwise = "\"/var/lib/orca\"",
     .check = spec_check_absolute,
     .help = "Where the daemons keep their state: store/, proxy/, agent/ below it."},
    {.name = "run_dir",
     .kind = SPEC_STRING,
     .flags = SPEC_NO_REFS,
     AT(run_dir),
     .otherwise = "\"/run/orca\"",
     .check = spec_check_absolute,
     .help = "Local sockets and pid files."},
    {.name = "key_dir",
     .kind = SPEC_STRING,
     .flags = SPEC_NO_REFS,
     AT(key_dir),
     .otherwise = "\"/etc/orca/keys\"",
     .check = spec_check_absolute,
     .help = "This node's key pairs and the cluster CA's certificate; on masters, in apiserver/, the CA's key and master.key."},
    {.name = "docker",
     .kind = SPEC_STRING,
     .flags = SPEC_NO_REFS,
     AT(docker),
     .otherwise = "\"/run/docker.sock\"",
     .check = spec_check_absolute,
     .help = "The Docker Engine's socket."},
};
static const struct spec_table node_table = {"[node]", "This machine.", NULL, node_keys, COUNT(node_keys), NULL};

static const struct spec_key master_keys[] = {
    {.name = "name",
     .kind = SPEC_STRING,
     .flags = SPEC_REQUIRED | SPEC_NO_REFS,
     .offset = offsetof(struct node_master, name),
     .check = spec_check_name,
     .help = "The master's node name."},
    {.name = "address",
     .kind = SPEC_STRING,
     .flags = SPEC_REQUIRED | SPEC_NO_REFS,
     .offset = offsetof(struct node_master, address),
     .check = spec_check_host,
     .help = "Where it is reached."},
    {.name = "key",
     .kind = SPEC_STRING,
     .flags = SPEC_NO_REFS,
     .offset = offsetof(struct node_master, key),
     .otherwise = "\"\"",
     .check = spec_check_curve_key,
     .help = "The public key of its node gateway (orca-apiserver)."},
    {.name = "store_key",
     .kind = SPEC_STRING,
     .flags = SPEC_NO_REFS,
     .offset = offsetof(struct node_master, store_key),
     .otherwise = "\"\"",
     .check = spec_check_curve_key,
     .help = "The public key of its store; only masters need it."},
};
static const struct spec_table master_table = {
    "[[cluster.masters]]", "The masters, in the order in which daemons try them.", NULL, master_keys, COUNT(master_keys), NULL};

static const struct spec_key cluster_keys[] = {
    {.name = "id",
     .kind = SPEC_STRING,
     .flags = SPEC_REQUIRED | SPEC_NO_REFS,
     AT(cluster_id),
     .check = spec_check_cluster_id,
     .help = "The label by which an agent knows its own containers: two clusters never touch each other's on one Docker."},
    {.name = "masters", .kind = SPEC_TABLES, .table = &master_table, .read = read_masters, .help = "Every master of the cluster."},
};
static const struct spec_table cluster_table = {"[cluster]", "The cluster that this node belongs to.", NULL, cluster_keys, COUNT(cluster_keys), NULL};

static const struct spec_key store_keys[] = {
    {.name = "backend",
     .kind = SPEC_CHOICE,
     .flags = SPEC_NO_REFS,
     AT(store_backend),
     .otherwise = "\"raft\"",
     .choices = backends,
     .help = "raft: orca's own; etcd: orca-store answers from an existing etcd v3 cluster."},
    {.name = "endpoints", .kind = SPEC_STRINGS, .flags = SPEC_LATER, .help = "etcd: its addresses."},
    {.name = "ca", .kind = SPEC_STRING, .flags = SPEC_LATER, .help = "etcd: the CA's certificate."},
    {.name = "cert", .kind = SPEC_STRING, .flags = SPEC_LATER, .help = "etcd: this client's certificate."},
    {.name = "key", .kind = SPEC_STRING, .flags = SPEC_LATER, .help = "etcd: this client's key."},
    {.name = "prefix", .kind = SPEC_STRING, .flags = SPEC_LATER, .help = "etcd: what every key begins with."},
};
static const struct spec_table store_table = {"[store]", "Where the cluster's state is kept (masters).", NULL, store_keys, COUNT(store_keys), NULL};

static const struct spec_key port_keys[] = {
    PORT("api", port_api, "6880", "The REST API (orca-apiserver)."),
    PORT("gateway", port_gateway, "6881", "The gateway that node daemons connect to (orca-apiserver)."),
    PORT("store", port_store, "6882", "Clients of the store."),
    PORT("raft", port_raft, "6883", "Stores among themselves."),
    PORT("gossip", port_gossip, "6884", "Agents among themselves, UDP."),
    PORT("http", port_http, "80", "HTTP of the proxy; cluster.toml's [proxy] http_port goes before it."),
    PORT("https", port_https, "443", "HTTPS of the proxy: kept for it until it speaks TLS."),
};
static const struct spec_table port_table = {"[ports]", "Only where the defaults are taken.", NULL, port_keys, COUNT(port_keys), NULL};

static const struct spec_key root_keys[] = {
    {.name = "node", .kind = SPEC_TABLE, .table = &node_table},
    {.name = "cluster", .kind = SPEC_TABLE, .flags = SPEC_REQUIRED, .table = &cluster_table},
    {.name = "store", .kind = SPEC_TABLE, .table = &store_table},
    {.name = "ports", .kind = SPEC_TABLE, .table = &port_table},
};
const struct spec_table spec_node_file = {
    "node.toml", "What one machine's daemons need before there is a cluster to ask.", NULL, root_keys, COUNT(root_keys), NULL};

static void read_masters(struct spec_reader *r, const struct spec_key *key, const struct toml_value *value, void *target) {
  struct node_config *config = target;
  if (value->type != TOML_ARRAY) {
    spec_fault(r, value, "expected an array of tables like { name = \"n1\", address = \"10.0.0.1\", key = \"…\" }");
    return;
  }
  if (value->array.count == 0)
    return;
  config->masters = calloc(value->array.count, sizeof *config->masters);
  if (!config->masters) {
    r->memory = true;
    return;
  }
  for (size_t i = 0; i < value->array.count; i++) {
    const struct toml_value *item = value->array.items[i];
    size_t mark = spec_path_push(r, "[%zu]", i);
    if (item->type == TOML_TABLE)
      spec_read_table(r, key->table, item, &config->masters[config->master_count++]);
    else
      spec_fault(r, item, "expected a table");
    spec_path_pop(r, mark);
  }
}

/* ---- defaults and what concerns several keys ---- */

static void fill(char **at, const char *text, struct spec_reader *r) {
  if (!*at && !(*at = strdup(text)))
    r->memory = true;
}

static void fill_table(const struct spec_table *table, void *target, struct spec_reader *r) {
  for (size_t i = 0; i < table->count; i++) {
    const struct spec_key *key = &table->keys[i];
    char *at = (char *)target + key->offset;
    const char *text = key->otherwise;
    if (key->kind == SPEC_STRING && !(key->flags & SPEC_LATER)) {
      size_t len = text && *text == '"' ? strlen(text) - 2 : 0;
      char plain[128] = "";
      if (len && len < sizeof plain)
        snprintf(plain, sizeof plain, "%.*s", (int)len, text + 1);
      fill((char **)at, plain, r);
    } else if (key->kind == SPEC_INTEGER && *(uint16_t *)at == 0) {
      *(uint16_t *)at = (uint16_t)atoi(text);
    }
  }
}

static void own_name(struct node_config *config, struct spec_reader *r) {
  char host[256] = "";
  if (config->name && *config->name)
    return;
  if (gethostname(host, sizeof host - 1) < 0)
    host[0] = 0;
  host[strcspn(host, ".")] = 0;
  for (char *c = host; *c; c++)
    *c = *c >= 'A' && *c <= 'Z' ? (char)(*c + 32) : *c;
  free(config->name);
  config->name = NULL;
  fill(&config->name, spec_check_name(host) ? "node" : host, r);
}

static void check_ports(const struct node_config *config, const struct toml_value *root, struct spec_reader *r) {
  const struct toml_value *ports = toml_get(root, "ports");
  for (size_t i = 0; i < COUNT(port_keys); i++) {
    for (size_t j = 0; j < i; j++) {
      uint16_t a = *(const uint16_t *)((const char *)config + port_keys[i].offset),
               b = *(const uint16_t *)((const char *)config + port_keys[j].offset);
      if (a != b || strcmp(port_keys[i].name, "gossip") == 0 || strcmp(port_keys[j].name, "gossip") == 0) /* UDP */
        continue;
      const struct toml_value *at = toml_get(ports, port_keys[i].name);
      size_t blamed = at ? i : j, other = at ? j : i; /* the one that was written, not the other's default */
      at = at ? at : toml_get(ports, port_keys[j].name);
      size_t mark = spec_path_push(r, "ports.%s", port_keys[blamed].name);
      spec_fault(r, at ? at : root, "port %u is taken by `%s` already", a, port_keys[other].name);
      spec_path_pop(r, mark);
    }
  }
}

static void syntax_fault(void *arg, unsigned line, unsigned column, const char *message) {
  struct spec_reader *r = arg;
  if (spec_fault_add(r->faults, r->file, line, column, "", "%s", message) < 0)
    r->memory = true;
}

int node_config_parse(const char *file, const char *text, size_t len, struct node_config *ret, struct spec_faults *faults, struct err *err) {
  struct node_config config = {0};
  struct spec_reader r = {.faults = faults, .file = file, .path = BUF_INIT(1024)};
  size_t first = faults->count;
  struct toml_doc *doc = toml_parse(text, len, syntax_fault, &r);
  if (doc) {
    const struct toml_value *root = toml_root(doc);
    r.partial = toml_fault_count(doc) > 0;
    spec_read_table(&r, &spec_node_file, root, &config);
    own_name(&config, &r);
    fill_table(&node_table, &config, &r);
    fill_table(&cluster_table, &config, &r);
    fill_table(&port_table, &config, &r);
    for (size_t i = 0; i < config.master_count; i++)
      fill_table(&master_table, &config.masters[i], &r);
    check_ports(&config, root, &r);
  }
  toml_free(doc);
  buf_free(&r.path);
  spec_faults_sort(faults, first);
  int rc = !doc || r.memory ? err_set(err, ERR_MEMORY, "%s: out of memory", file) : spec_faults_err(faults, err);
  if (rc == 0)
    *ret = config;
  else
    node_config_free(&config);
  return rc;
}

int node_config_read(const char *path, struct node_config *ret, struct spec_faults *faults, struct err *err) {
  struct buf text = BUF_INIT(NODE_TOML_MAX);
  int rc = spec_read_file(AT_FDCWD, path, &text, err);
  if (rc == 0)
    rc = node_config_parse(path, buf_str(&text), text.len, ret, faults, err);
  buf_free(&text);
  return rc;
}

void node_config_free(struct node_config *config) {
  if (!config)
    return;
  free(config->name);
  free(config->address);
  free(config->state_dir);
  free(config->run_dir);
  free(config->key_dir);
  free(config->docker);
  free(config->cluster_id);
  for (size_t i = 0; i < config->master_count; i++) {
    free(config->masters[i].name);
    free(config->masters[i].address);
    free(config->masters[i].key);
    free(config->masters[i].store_key);
  }
  free(config->masters);
  *config = (struct node_config){0};
}
