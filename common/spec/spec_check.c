/* Between services, and against the cluster: names, circles, routes, ports, [policy]. */
#include "common/spec/spec_set.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bus/pb.h"

/* ---- [policy] ---- */

static bool listed(const char *what, size_t len, char *const *list, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (strlen(list[i]) == len && memcmp(list[i], what, len) == 0)
      return true;
  return false;
}

/* One step over a path, past slashes and "."; 0 at its end. */
static size_t next_part(const char **s) {
  for (;;) {
    *s += strspn(*s, "/");
    size_t n = strcspn(*s, "/");
    if (n != 1 || **s != '.')
      return n;
    *s += 1;
  }
}

/* Lexically: path is dir, or lies below it. One with .. lies nowhere. */
static bool below(const char *path, const char *dir) {
  if (*path != '/' || *dir != '/')
    return false;
  for (const char *p = path;;) {
    size_t n = next_part(&p);
    if (n == 0)
      break;
    if (n == 2 && p[0] == '.' && p[1] == '.')
      return false;
    p += n;
  }
  for (;;) {
    size_t n = next_part(&path), m = next_part(&dir);
    if (m == 0)
      return true;
    if (n != m || memcmp(path, dir, n) != 0)
      return false;
    path += n;
    dir += m;
  }
}

static bool path_allowed(const char *path, const Model__Policy *policy) {
  for (size_t i = 0; policy && i < policy->n_allow_host_paths; i++)
    if (below(path, policy->allow_host_paths[i]))
      return true;
  return false;
}

static const char *plain_cap(const char *cap) {
  return strncmp(cap, "CAP_", 4) == 0 ? cap + 4 : cap;
}

static bool cap_allowed(const char *cap, const Model__Policy *policy) {
  for (size_t i = 0; policy && i < policy->n_allow_caps; i++)
    if (strcmp(plain_cap(cap), plain_cap(policy->allow_caps[i])) == 0)
      return true;
  return false;
}

static const char *option(const Model__Volume *v, const char *name) {
  for (size_t i = 0; i < v->n_options; i++)
    if (strcmp(PB_STR(v->options[i]->key), name) == 0)
      return PB_STR(v->options[i]->value);
  return "";
}

static bool has_word(const char *list, const char *word) {
  size_t len = strlen(word);
  for (const char *s = list; *s; s += *s == ',') {
    size_t n = strcspn(s, ",");
    if (n == len && memcmp(s, word, n) == 0)
      return true;
    s += n;
  }
  return false;
}

/* Docker's local driver hands type, device and o to mount(2): with them a volume can be any path or device of the host. What is known to stay off
 * it passes; a plain bind passes where the path is allowed; everything else is refused. Mount flags count for more than the type: with
 * MS_BIND the kernel ignores it. */
static bool volume_allowed(const Model__Volume *v, const Model__Policy *policy) {
  const char *type = option(v, "type"), *device = option(v, "device"), *o = option(v, "o");
  bool local = !*PB_STR(v->driver) || strcmp(v->driver, "local") == 0;
  if (!local) {
    for (size_t i = 0; i < v->n_options; i++)
      if (PB_STR(v->options[i]->value)[0] == '/' && !path_allowed(v->options[i]->value, policy))
        return false;
    return true;
  }
  for (size_t i = 0; i < v->n_options; i++) { /* Docker takes the names in any case; two spellings of one would slip past us */
    const char *key = PB_STR(v->options[i]->key);
    for (const char *name = key; *name; name++)
      if (*name >= 'A' && *name <= 'Z')
        return false;
  }
  bool bind = has_word(o, "bind") || has_word(o, "rbind") || strcmp(type, "none") == 0 || strcmp(type, "bind") == 0;
  if (has_word(o, "move") || has_word(o, "remount"))
    return false;
  if (bind)
    return path_allowed(device, policy);
  if (!*type)
    return !*device;
  if (strcmp(type, "tmpfs") == 0)
    return true;
  if (strcmp(type, "nfs") == 0 || strcmp(type, "nfs4") == 0)
    return *device != '/';
  return strcmp(type, "cifs") == 0 && device[0] == '/' && device[1] == '/';
}

typedef void refuse_fn(void *arg, const char *key, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

static void each_refusal(const Model__ServiceSpec *spec, const Model__ClusterSpec *cluster, refuse_fn *refuse, void *arg) {
  const Model__Policy *p = cluster ? cluster->policy : NULL;
  if (PB_GET(spec, privileged, 0) && !(p && PB_GET(p, allow_privileged, 0)))
    refuse(arg, "privileged", "refused by [policy]: allow_privileged is not set");
  if (strcmp(PB_STR(spec->network), "host") == 0 && !(p && PB_GET(p, allow_host_network, 0)))
    refuse(arg, "network", "\"host\" is refused by [policy]: allow_host_network is not set");
  for (size_t i = 0; i < spec->n_devices; i++)
    if (!p || !listed(spec->devices[i], strcspn(spec->devices[i], ":"), p->allow_devices, p->n_allow_devices))
      refuse(arg, "devices", "%s is refused by [policy]: allow_devices does not name it", spec->devices[i]);
  for (size_t i = 0; i < spec->n_caps; i++)
    if (!cap_allowed(spec->caps[i], p))
      refuse(arg, "caps", "%s is refused by [policy]: allow_caps does not name it", spec->caps[i]);
  for (size_t i = 0; i < spec->n_mounts; i++) {
    const char *source = PB_STR(spec->mounts[i]->source);
    if (*source == '/' && !path_allowed(source, p))
      refuse(arg, "mounts", "%s is refused by [policy]: allow_host_paths does not name it", source);
  }
  for (size_t i = 0; i < spec->n_volumes; i++)
    if (!volume_allowed(spec->volumes[i], p))
      refuse(arg, "volumes", "the options of %s are refused by [policy]: they reach a path of the host that allow_host_paths does not name",
             PB_STR(spec->volumes[i]->source));
}

struct first_refusal {
  struct err *err;
  bool any;
};

static void refuse_err(void *arg, const char *key, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void refuse_err(void *arg, const char *key, const char *fmt, ...) {
  struct first_refusal *first = arg;
  char message[400];
  va_list ap;
  if (first->any)
    return;
  first->any = true;
  va_start(ap, fmt);
  vsnprintf(message, sizeof message, fmt, ap);
  va_end(ap);
  err_set(first->err, ERR_DENIED, "%s: %s", key, message);
}

int spec_check_policy(const Model__ServiceSpec *spec, const Model__ClusterSpec *cluster, struct err *err) {
  struct first_refusal first = {.err = err};
  each_refusal(spec, cluster, refuse_err, &first);
  return first.any ? -1 : 0;
}

/* ---- a set ---- */

struct checker {
  const struct spec_set *set;
  Model__ServiceSpec *const *others;
  size_t count; /* of both together: the set's come first */
  struct spec_faults *faults;
  size_t at; /* the service that faults are about */
};

static const Model__ServiceSpec *service(const struct checker *c, size_t i) {
  return i < c->set->service_count ? c->set->services[i] : c->others[i - c->set->service_count];
}

/* Services and jobs are two lists there. */
static size_t place_in_body(const struct checker *c) {
  size_t n = 0;
  for (size_t i = 0; i < c->at; i++)
    n += !c->set->services[i]->job == !c->set->services[c->at]->job;
  return n;
}

static void set_fault(void *arg, const char *key, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void set_fault(void *arg, const char *key, const char *fmt, ...) {
  struct checker *c = arg;
  char no_file[] = "";
  const struct spec_place nowhere = {no_file, 0, 0};
  const struct spec_place *place = c->set->place_count == c->set->service_count ? &c->set->places[c->at] : &nowhere;
  const Model__ServiceSpec *s = c->set->services[c->at];
  char path[256], message[640];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(message, sizeof message, fmt, ap);
  va_end(ap);
  if (*place->file)
    snprintf(path, sizeof path, "%s/%s.%s", s->project, s->name, key);
  else
    snprintf(path, sizeof path, "%s[%zu].%s", s->job ? "jobs" : "services", place_in_body(c), key);
  spec_fault_add(c->faults, place->file, place->line, place->column, path, "%s", message);
}

static bool same_service(const Model__ServiceSpec *a, const char *project, size_t project_len, const char *name) {
  const char *p = PB_STR(a->project);
  return strlen(p) == project_len && memcmp(p, project, project_len) == 0 && strcmp(PB_STR(a->name), name) == 0;
}

/* NAME in the project of `from`, or PROJECT/NAME. SIZE_MAX when there is none. */
static size_t find(const struct checker *c, const Model__ServiceSpec *from, const char *ref) {
  const char *slash = strchr(ref, '/'), *project = slash ? ref : PB_STR(from->project);
  size_t len = slash ? (size_t)(slash - ref) : strlen(project);
  for (size_t i = 0; i < c->count; i++)
    if (same_service(service(c, i), project, len, slash ? slash + 1 : ref))
      return i;
  return SIZE_MAX;
}

/* Twice in the set itself. */
static bool check_twice(struct checker *c) {
  const Model__ServiceSpec *s = service(c, c->at);
  for (size_t i = 0; i < c->at; i++)
    if (same_service(service(c, i), s->project, strlen(s->project), s->name)) {
      char where[160] = "";
      if (c->set->place_count == c->set->service_count && *c->set->places[i].file)
        snprintf(where, sizeof where, ", first at %.100s:%u:%u", c->set->places[i].file, c->set->places[i].line, c->set->places[i].column);
      set_fault(c, "name", "%s/%s is there twice%s%s", s->project, s->name, !service(c, i)->job == !s->job ? "" : ", as a service and as a job",
                where);
      return true;
    }
  return false;
}

static void check_names(struct checker *c) {
  const Model__ServiceSpec *s = service(c, c->at);
  if (check_twice(c))
    return;
  /* What is deployed already and does not go with this: its kind cannot change under it. */
  for (size_t i = c->set->service_count; i < c->count; i++)
    if (!service(c, i)->job != !s->job && same_service(service(c, i), s->project, strlen(s->project), s->name)) {
      set_fault(c, "name", "%s/%s is deployed as a %s: remove that first, or take another name", s->project, s->name,
                service(c, i)->job ? "job" : "service");
      return;
    }
  for (size_t i = 0; i < s->n_depends_on; i++) {
    size_t to = find(c, s, s->depends_on[i]);
    if (to == SIZE_MAX)
      set_fault(c, "depends_on", "there is no service %s", s->depends_on[i]);
    else if (service(c, to)->job)
      set_fault(c, "depends_on", "%s is a job, which is never ready: only services can be waited for", s->depends_on[i]);
  }
}

/* Circles: depth first, by hand, since a chain may be as long as there are services. state: 0 unseen, 1 on the way, 2 done. */
struct visit {
  size_t service, next;
};

static void report_circle(struct checker *c, const struct visit *stack, size_t depth, size_t back_to) {
  struct buf text = BUF_INIT(512);
  size_t from = 0;
  while (stack[from].service != back_to)
    from++;
  for (size_t i = from; i < depth; i++)
    buf_printf(&text, "%s/%s → ", service(c, stack[i].service)->project, service(c, stack[i].service)->name);
  buf_printf(&text, "%s/%s", service(c, back_to)->project, service(c, back_to)->name);
  for (size_t i = from; i < depth; i++) {
    if (stack[i].service < c->set->service_count) { /* said once, at a service that this deploy brings */
      size_t saved = c->at;
      c->at = stack[i].service;
      set_fault(c, "depends_on", "a circle: %s", buf_str(&text));
      c->at = saved;
      break;
    }
  }
  buf_free(&text);
}

static void check_circles(struct checker *c) {
  uint8_t *state = calloc(c->count ? c->count : 1, 1);
  struct visit *stack = calloc(c->count ? c->count : 1, sizeof *stack);
  for (size_t start = 0; state && stack && start < c->set->service_count; start++) {
    if (state[start])
      continue;
    size_t depth = 0;
    stack[depth++] = (struct visit){start, 0};
    state[start] = 1;
    while (depth) {
      struct visit *top = &stack[depth - 1];
      const Model__ServiceSpec *s = service(c, top->service);
      if (top->next == s->n_depends_on) {
        state[top->service] = 2;
        depth--;
        continue;
      }
      size_t to = find(c, s, s->depends_on[top->next++]);
      if (to == SIZE_MAX || state[to] == 2)
        continue;
      if (state[to] == 1) {
        report_circle(c, stack, depth, to);
        continue;
      }
      state[to] = 1;
      stack[depth++] = (struct visit){to, 0};
    }
  }
  if (!state || !stack)
    spec_fault_add(c->faults, "", 0, 0, "", "out of memory");
  free(state);
  free(stack);
}

static const char *route(const Model__ServiceSpec *s, size_t i) {
  return s->n_routes ? s->routes[i] : "/*";
}

bool spec_shares_route(const Model__ServiceSpec *a, const Model__ServiceSpec *b, const char **ret_domain, const char **ret_route) {
  for (size_t i = 0; i < a->n_domains; i++)
    for (size_t j = 0; j < b->n_domains; j++)
      if (strcmp(a->domains[i], b->domains[j]) == 0)
        for (size_t k = 0; k < (a->n_routes ? a->n_routes : 1); k++)
          for (size_t l = 0; l < (b->n_routes ? b->n_routes : 1); l++)
            if (strcmp(route(a, k), route(b, l)) == 0) {
              *ret_domain = a->domains[i];
              *ret_route = route(a, k);
              return true;
            }
  return false;
}

static bool takes_port(const Model__ServiceSpec *s, uint32_t port, Model__Protocol protocol) {
  if (protocol == MODEL__PROTOCOL__TCP && PB_GET(s, host_port, 0) == port)
    return true;
  for (size_t i = 0; i < s->n_extra_ports; i++)
    if (s->extra_ports[i]->host_port == port && s->extra_ports[i]->protocol == protocol)
      return true;
  return false;
}

/* On one node only when both are nailed to it: elsewhere placement finds two nodes. */
static uint32_t shared_port(const Model__ServiceSpec *a, const Model__ServiceSpec *b) {
  if (!a->placement || !b->placement || !*PB_STR(a->placement->node) || strcmp(a->placement->node, PB_STR(b->placement->node)) != 0)
    return 0;
  if (PB_GET(a, host_port, 0) && takes_port(b, a->host_port, MODEL__PROTOCOL__TCP))
    return a->host_port;
  for (size_t i = 0; i < a->n_extra_ports; i++)
    if (takes_port(b, a->extra_ports[i]->host_port, a->extra_ports[i]->protocol))
      return a->extra_ports[i]->host_port;
  return 0;
}

/* With those before it in the set, and all the others. */
static void check_pairs(struct checker *c) {
  const Model__ServiceSpec *a = service(c, c->at);
  if (!a->n_domains && !a->has_host_port && !a->n_extra_ports)
    return;
  for (size_t i = 0; i < c->count; i++) {
    const Model__ServiceSpec *b = service(c, i);
    const char *domain, *path;
    if ((i >= c->at && i < c->set->service_count) || same_service(b, a->project, strlen(a->project), a->name))
      continue;
    if (spec_shares_route(a, b, &domain, &path))
      set_fault(c, "domains", "%s%s leads to %s/%s already", domain, path, PB_STR(b->project), PB_STR(b->name));
    uint32_t port = shared_port(a, b);
    if (port)
      set_fault(c, PB_GET(a, host_port, 0) == port ? "host_port" : "extra_ports", "port %u of %s is taken by %s/%s", port, a->placement->node,
                PB_STR(b->project), PB_STR(b->name));
  }
}

void spec_check_names(const struct spec_set *set, struct spec_faults *faults) {
  struct checker c = {.set = set, .count = set->service_count, .faults = faults};
  for (c.at = 0; c.at < set->service_count; c.at++)
    check_twice(&c);
}

void spec_check_set(const struct spec_set *set, Model__ServiceSpec *const *others, size_t other_count, const Model__ClusterSpec *cluster,
                    struct spec_faults *faults) {
  struct checker c = {.set = set, .others = others, .count = set->service_count + other_count, .faults = faults};
  for (c.at = 0; c.at < set->service_count; c.at++) {
    check_names(&c);
    check_pairs(&c);
    each_refusal(set->services[c.at], cluster, set_fault, &c);
  }
  check_circles(&c);
}
