/* Every key of service.toml and cluster.toml: the one table. Order here is the order of printing and of the reference. */
#include "common/spec/spec_keys.h"

#include <stdint.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))
#define END                                                                                                                                          \
  { NULL, 0, false, false }
#define TABLE_LATER(var, heading_, help_, ...)                                                                                                       \
  static const struct spec_key var##_keys[] = {__VA_ARGS__};                                                                                         \
  static const struct spec_table var = {heading_, help_, NULL, var##_keys, COUNT(var##_keys), NULL}
#define LATER(name_, kind_, otherwise_, help_)                                                                                                       \
  { .name = name_, .kind = kind_, .flags = SPEC_LATER, .otherwise = otherwise_, .help = help_ }

#define MS_MAX (INT64_C(365) * 24 * 3600 * 1000)
#define BYTES_MAX (INT64_C(1) << 50)

/* ---- service.toml ---- */

static const struct spec_choice runtimes[] = {{"container", 0, false, false}, {"docker", 0, false, true}, {"wasm", 1, true, false}, END};
static const struct spec_choice restarts[] = {{"always", MODEL__RESTART_POLICY__RESTART_ALWAYS, false, false},
                                              {"on-failure", MODEL__RESTART_POLICY__RESTART_ON_FAILURE, false, false},
                                              {"never", MODEL__RESTART_POLICY__RESTART_NEVER, false, false},
                                              END};
static const struct spec_choice partitions[] = {{"keep", 0, false, false}, {"stop", 1, true, false}, END};
static const struct spec_choice pulls[] = {{"if-absent", MODEL__PULL_POLICY__PULL_IF_ABSENT, false, false},
                                           {"always", MODEL__PULL_POLICY__PULL_ALWAYS, false, false},
                                           {"never", MODEL__PULL_POLICY__PULL_NEVER, false, false},
                                           END};
static const struct spec_choice strategies[] = {{"rolling", MODEL__DEPLOY_STRATEGY__ROLLING, false, false},
                                                {"recreate", MODEL__DEPLOY_STRATEGY__RECREATE, false, false},
                                                {"canary", 0, true, false},
                                                {"blue-green", 0, true, false},
                                                END};
static const struct spec_choice gpu_vendors[] = {{"nvidia", 0, false, false}, {"amd", 0, false, false}, END};
static const struct spec_choice log_levels[] = {{"trace", 0, false, false}, {"debug", 0, false, false}, {"info", 0, false, false},
                                                {"warn", 0, false, false},  {"error", 0, false, false}, END};

static const struct spec_key gpu_keys[] = {
    {.name = "count", .kind = SPEC_INTEGER, .field = "count", .min = 1, .max = 64, .otherwise = "1", .help = "How many."},
    {.name = "vendor", .kind = SPEC_CHOICE, .field = "vendor", .choices = gpu_vendors, .help = "Whose; any when absent."},
    {.name = "model", .kind = SPEC_STRING, .field = "model", .check = spec_check_nonempty, .help = "Which model; any when absent."},
    {.name = "vram_min", .kind = SPEC_INTEGER, .field = "vram_min", .min = 1, .max = 1 << 24, .help = "Memory that each must have at least, in MiB."},
};
static const struct spec_table gpu_table = {
    "[service.resources.gpu]", "Graphics processors that each instance gets for itself.", &model__gpu__descriptor, gpu_keys, COUNT(gpu_keys), NULL};

static const struct spec_key resources_keys[] = {
    {.name = "memory",
     .kind = SPEC_SIZE,
     .field = "memory",
     .min = 6 << 20,
     .max = BYTES_MAX,
     .otherwise = "(no limit)",
     .help = "Limit of each instance, and its reservation unless memory_request is given."},
    {.name = "memory_request",
     .kind = SPEC_SIZE,
     .field = "memory_request",
     .min = 0,
     .max = BYTES_MAX,
     .otherwise = "(memory)",
     .help = "What placement reserves."},
    {.name = "cpu",
     .kind = SPEC_CPU,
     .field = "cpu_milli",
     .min = 10,
     .max = 1024000,
     .otherwise = "(no limit)",
     .help = "Cores: limit and reservation."},
    {.name = "pids",
     .kind = SPEC_INTEGER,
     .field = "pids",
     .min = 1,
     .max = 4194304,
     .otherwise = "(no limit)",
     .help = "Processes and threads at most."},
    {.name = "gpu", .kind = SPEC_TABLE, .field = "gpu", .table = &gpu_table, .help = "Graphics processors."},
};
static const struct spec_table resources_table = {"[service.resources]",         "What an instance may use, and what placement reserves for it.",
                                                  &model__resources__descriptor, resources_keys,
                                                  COUNT(resources_keys),         spec_finish_resources};

static const struct spec_key deploy_keys[] = {
    {.name = "strategy",
     .kind = SPEC_CHOICE,
     .field = "strategy",
     .choices = strategies,
     .otherwise = "\"rolling\"",
     .help = "How a new revision replaces the old one. What binds a host port or a volume is replaced stop-first in any case."},
    {.name = "max_unavailable",
     .kind = SPEC_INTEGER,
     .field = "max_unavailable",
     .min = 0,
     .max = 10000,
     .otherwise = "0",
     .help = "How many instances may be missing during a rollout."},
    {.name = "max_surge",
     .kind = SPEC_INTEGER,
     .field = "max_surge",
     .min = 0,
     .max = 10000,
     .otherwise = "1",
     .help = "How many instances may exist beyond `replicas` during a rollout."},
    LATER("canary_weight", SPEC_INTEGER, NULL, "Percent of requests to the new revision until `orcactl promote`."),
    {.name = "timeout",
     .kind = SPEC_DURATION,
     .field = "timeout_ms",
     .min = 1000,
     .max = MS_MAX,
     .otherwise = "\"5m\"",
     .help = "Without progress for this long, a rollout has failed."},
    {.name = "auto_rollback",
     .kind = SPEC_BOOL,
     .field = "auto_rollback",
     .otherwise = "true",
     .help = "Go back to the last good revision when a rollout fails."},
    {.name = "min_ready",
     .kind = SPEC_DURATION,
     .field = "min_ready_ms",
     .min = 0,
     .max = MS_MAX,
     .otherwise = "\"5s\"",
     .help = "How long an instance must be ready before it counts."},
};
static const struct spec_table deploy_table = {
    "[service.deploy]", "How a changed service is rolled out.", &model__deploy_policy__descriptor, deploy_keys, COUNT(deploy_keys),
    spec_finish_deploy};

static const struct spec_key placement_keys[] = {
    {.name = "node", .kind = SPEC_STRING, .field = "node", .check = spec_check_name, .help = "Exactly this node."},
    {.name = "labels", .kind = SPEC_MAP, .field = "labels", .check_name = spec_check_label_name, .help = "Node labels that must all match."},
    {.name = "avoid",
     .kind = SPEC_STRINGS,
     .field = "avoid",
     .check = spec_check_service_ref,
     .help = "Not on a node with these services (NAME or PROJECT/NAME)."},
    {.name = "spread",
     .kind = SPEC_STRING,
     .field = "spread",
     .check = spec_check_label_name,
     .otherwise = "(the node itself)",
     .help = "Spread instances over the values of this node label."},
};
static const struct spec_table placement_table = {"[service.placement]", "Where instances may run.", &model__placement__descriptor,
                                                  placement_keys,        COUNT(placement_keys),      NULL};

static const struct spec_key probe_keys[] = {
    {.name = "path", .kind = SPEC_STRING, .field = "path", .check = spec_check_http_path, .help = "HTTP: a GET of this path; 200 to 399 passes."},
    {.name = "tcp", .kind = SPEC_BOOL, .field = "tcp", .help = "TCP: a connection that opens passes."},
    {.name = "exec", .kind = SPEC_STRINGS, .field = "exec", .check = spec_check_nonempty, .help = "A command in the container; exit code 0 passes."},
    LATER("grpc", SPEC_STRING, NULL, "The gRPC health protocol, for this service name."),
    {.name = "port", .kind = SPEC_INTEGER, .field = "port", .min = 1, .max = 65535, .otherwise = "(the service's port)", .help = "Where to."},
    {.name = "interval_secs",
     .kind = SPEC_INTEGER,
     .field = "interval_secs",
     .min = 1,
     .max = 86400,
     .otherwise = "10",
     .help = "From one probe to the next."},
    {.name = "timeout_secs",
     .kind = SPEC_INTEGER,
     .field = "timeout_secs",
     .min = 1,
     .max = 3600,
     .otherwise = "3",
     .help = "No answer by then is a failure."},
    {.name = "failure_threshold",
     .kind = SPEC_INTEGER,
     .field = "failure_threshold",
     .min = 1,
     .max = 1000,
     .otherwise = "3",
     .help = "Failures in a row that make the verdict."},
    {.name = "success_threshold",
     .kind = SPEC_INTEGER,
     .field = "success_threshold",
     .min = 1,
     .max = 1000,
     .otherwise = "1",
     .help = "Successes in a row that make the verdict."},
    {.name = "initial_delay_secs",
     .kind = SPEC_INTEGER,
     .field = "initial_delay_secs",
     .min = 0,
     .max = 86400,
     .otherwise = "0",
     .help = "It is not asked before this much time has passed since the start."},
};
static const struct spec_table readiness_table = {
    "[service.readiness]", "Traffic only while it passes.", &model__probe__descriptor, probe_keys, COUNT(probe_keys), spec_finish_probe};
static const struct spec_table startup_table = {
    "[service.startup]", "Liveness starts when it has passed once.", &model__probe__descriptor, probe_keys, COUNT(probe_keys), spec_finish_probe};
static const struct spec_table liveness_table = {"[service.liveness]",      "Restarted after failure_threshold failures in a row.",
                                                 &model__probe__descriptor, probe_keys,
                                                 COUNT(probe_keys),         spec_finish_probe};

static const struct spec_key volume_keys[] = {
    {.name = "source",
     .kind = SPEC_STRING,
     .flags = SPEC_REQUIRED,
     .field = "source",
     .check = spec_check_volume_name,
     .help = "The volume's name, in its project."},
    {.name = "target", .kind = SPEC_STRING, .flags = SPEC_REQUIRED, .field = "target", .check = spec_check_target, .help = "Where in the container."},
    {.name = "read_only", .kind = SPEC_BOOL, .field = "read_only", .otherwise = "false", .help = "Mounted so that it cannot be written."},
    {.name = "driver",
     .kind = SPEC_STRING,
     .field = "driver",
     .check = spec_check_nonempty,
     .otherwise = "(local)",
     .help = "Docker's volume driver."},
    LATER("size", SPEC_SIZE, NULL, "How large it may become."),
    {.name = "options",
     .kind = SPEC_MAP,
     .field = "options",
     .help = "The driver's options. Those that name a host path need [policy] allow_host_paths."},
};
const struct spec_table spec_volume_table = {
    "[[service.volumes]]", "Named volumes. They bind the service to its node.", &model__volume__descriptor, volume_keys, COUNT(volume_keys), NULL};

static const struct spec_key mount_file_keys[] = {
    {.name = "path",
     .kind = SPEC_STRING,
     .flags = SPEC_NO_REFS,
     .field = "path",
     .check = spec_check_below,
     .help = "Below the target; absent for a single file."},
    {.name = "sha256",
     .kind = SPEC_STRING,
     .flags = SPEC_REQUIRED | SPEC_NO_REFS,
     .field = "sha256",
     .check = spec_check_sha256,
     .help = "Of the content."},
    {.name = "mode", .kind = SPEC_INTEGER, .field = "mode", .min = 0, .max = 0777, .help = "Permission bits."},
};
static const struct spec_table mount_file_table = {
    "[[service.mounts.files]]",     "The files of a mount from the infra directory: filled in by `orcactl deploy`, not written by hand.",
    &model__mount_file__descriptor, mount_file_keys,
    COUNT(mount_file_keys),         NULL};
static const struct spec_key mount_keys[] = {
    {.name = "source",
     .kind = SPEC_STRING,
     .flags = SPEC_REQUIRED | SPEC_NO_REFS,
     .field = "source",
     .check = spec_check_mount_source,
     .help = "A file or directory in the infra directory (shipped to the node), or an absolute host path that [policy] allow_host_paths allows."},
    {.name = "target", .kind = SPEC_STRING, .flags = SPEC_REQUIRED, .field = "target", .check = spec_check_target, .help = "Where in the container."},
    {.name = "read_only",
     .kind = SPEC_BOOL,
     .field = "read_only",
     .otherwise = "false",
     .help = "Mounted so that it cannot be written. What comes from the infra directory always is."},
    {.name = "files", .kind = SPEC_TABLES, .field = "files", .table = &mount_file_table, .help = "Filled in by `orcactl deploy`."},
};
const struct spec_table spec_mount_table = {"[[service.mounts]]",      "Files and directories from the infra directory, or host paths.",
                                            &model__mount__descriptor, mount_keys,
                                            COUNT(mount_keys),         NULL};

static const struct spec_key proxy_keys[] = {
    LATER("sticky", SPEC_BOOL, "false", "A client stays with its instance, by cookie."),
    LATER("rate_limit", SPEC_STRING, NULL, "Requests per client address, like \"100/s\"; beyond it 429 with Retry-After."),
    LATER("rate_burst", SPEC_INTEGER, "(twice the limit)", "How many may come at once."),
    {.name = "max_body",
     .kind = SPEC_SIZE,
     .field = "max_body",
     .min = 0,
     .max = BYTES_MAX,
     .otherwise = "\"100Mi\"",
     .help = "Larger request bodies get 413."},
    {.name = "timeout",
     .kind = SPEC_DURATION,
     .field = "timeout_ms",
     .min = 100,
     .max = 24 * 3600 * 1000,
     .otherwise = "\"60s\"",
     .help = "The instance must begin its answer within this time."},
    LATER("basic_auth", SPEC_STRING, NULL, "user:bcrypt, asked for before anything else."),
    LATER("allow", SPEC_STRINGS, NULL, "Only clients of these networks."),
    LATER("headers", SPEC_MAP, NULL, "Added to every answer."),
    LATER("redirect_https", SPEC_BOOL, NULL, "Send http:// to https://."),
    LATER("maintenance", SPEC_BOOL, "false", "Answer 503 with a page."),
    LATER("maintenance_page", SPEC_STRING, NULL, "That page, a file in the infra directory."),
};
static const struct spec_table proxy_table = {
    "[service.proxy]", "How requests to the service are treated.", &model__proxy_rules__descriptor, proxy_keys, COUNT(proxy_keys), NULL};

TABLE_LATER(scale_table, "[service.scale]", "Autoscaling, with `replicas = \"auto\"`.", LATER("min", SPEC_INTEGER, NULL, "At least; 0 = asleep."),
            LATER("max", SPEC_INTEGER, NULL, "At most."),
            LATER("cpu_percent", SPEC_INTEGER, NULL, "Of its own limit; above: up; below half of it: down."),
            LATER("memory_percent", SPEC_INTEGER, NULL, "Of its own limit."), LATER("rps", SPEC_INTEGER, NULL, "Requests per second per instance."),
            LATER("latency_ms", SPEC_INTEGER, NULL, "p95."),
            LATER("metrics_strategy", SPEC_STRING, "\"max\"", "max or average over a pod's containers."),
            LATER("cooldown", SPEC_DURATION, NULL, "Between two changes."), LATER("wake", SPEC_BOOL, NULL, "The first request starts an instance."));
TABLE_LATER(service_backup_table, "[service.backup]", "What a backup of this service does.",
            LATER("pre_hook", SPEC_STRING, NULL, "In the container, before."), LATER("post_hook", SPEC_STRING, NULL, "In the container, after."),
            LATER("exclude", SPEC_STRINGS, NULL, "Volumes left out."), LATER("schedule", SPEC_STRING, "(the cluster's)", "Cron, seconds first."));
TABLE_LATER(build_table, "[service.build]", "The image is built from a repository.", LATER("repo", SPEC_STRING, NULL, "Where."),
            LATER("branch", SPEC_STRING, NULL, "Which branch."), LATER("dockerfile", SPEC_STRING, "\"Dockerfile\"", "Its Dockerfile."),
            LATER("context", SPEC_STRING, "\".\"", "The build's context."));
TABLE_LATER(containers_table, "[[service.containers]]", "Sidecars: one pod, one network name space.", LATER("name", SPEC_STRING, NULL, "Its name."),
            LATER("image", SPEC_STRING, NULL, "Its image."), LATER("port", SPEC_INTEGER, NULL, "Its port."));
TABLE_LATER(assets_table, "[[service.assets]]", "Files fetched on the node, verified, mounted read-only.",
            LATER("url", SPEC_STRING, NULL, "From where."), LATER("sha256", SPEC_STRING, NULL, "Of the content."),
            LATER("target", SPEC_STRING, NULL, "Where in the container."), LATER("refresh", SPEC_DURATION, NULL, "Fetched again after."));
TABLE_LATER(wasm_table, "[service.wasm]", "Limits of a WebAssembly module.", LATER("memory", SPEC_SIZE, NULL, "At most."),
            LATER("fuel", SPEC_INTEGER, NULL, "Per request."), LATER("timeout", SPEC_DURATION, NULL, "Per request."));

static const struct spec_key service_keys[] = {
    {.name = "name",
     .kind = SPEC_STRING,
     .flags = SPEC_REQUIRED | SPEC_NO_REFS,
     .field = "name",
     .check = spec_check_name,
     .help = "Unique in its project."},
    {.name = "project",
     .kind = SPEC_STRING,
     .flags = SPEC_NO_REFS,
     .field = "project",
     .check = spec_check_name,
     .otherwise = "(the folder's name)",
     .help = "The name space that it belongs to, with a network of its own."},
    {.name = "runtime",
     .kind = SPEC_CHOICE,
     .choices = runtimes,
     .otherwise = "\"container\"",
     .help = "What runs it. `docker` says the same as `container`."},
    {.name = "image",
     .kind = SPEC_STRING,
     .flags = SPEC_REQUIRED,
     .field = "image",
     .check = spec_check_image,
     .help = "The image, resolved to a digest once, at deploy; `:latest` is pulled at every deploy."},
    {.name = "command", .kind = SPEC_STRINGS, .field = "command", .otherwise = "(the image's)", .help = "Arguments."},
    {.name = "entrypoint", .kind = SPEC_STRINGS, .field = "entrypoint", .otherwise = "(the image's)", .help = "The program."},
    {.name = "user",
     .kind = SPEC_STRING,
     .field = "user",
     .check = spec_check_nonempty,
     .otherwise = "(the image's)",
     .help = "USER or UID, or with :GROUP."},
    {.name = "workdir",
     .kind = SPEC_STRING,
     .field = "workdir",
     .check = spec_check_absolute,
     .otherwise = "(the image's)",
     .help = "Where the program starts."},
    {.name = "replicas",
     .kind = SPEC_INTEGER,
     .field = "replicas",
     .min = 0,
     .max = 10000,
     .otherwise = "1",
     .read = spec_read_replicas,
     .help = "How many instances; 0 = none. `\"auto\"` (between [service.scale] min and max) is not supported yet."},
    {.name = "port",
     .kind = SPEC_INTEGER,
     .field = "port",
     .min = 1,
     .max = 65535,
     .help = "The container's main port, for routes, probes and host_port."},
    {.name = "host_port",
     .kind = SPEC_INTEGER,
     .field = "host_port",
     .min = 1,
     .max = 65535,
     .help = "A fixed port on the node's address that leads to `port`. Without it nothing is published on the node."},
    {.name = "extra_ports",
     .kind = SPEC_STRINGS,
     .field = "extra_ports",
     .read = spec_read_ports,
     .write = spec_write_ports,
     .help = "More ports to publish: \"HOST:CONTAINER\", \"53:53/udp\"."},
    LATER("node_port", SPEC_INTEGER, NULL, "Every node's proxy listens here and balances TCP over all ready instances."),
    {.name = "domain",
     .kind = SPEC_STRING,
     .flags = SPEC_SHORT,
     .check = spec_check_domain,
     .read = spec_read_domain,
     .help = "Short for one of `domains`."},
    {.name = "domains",
     .kind = SPEC_STRINGS,
     .field = "domains",
     .check = spec_check_domain,
     .help = "Names that the proxy routes to it (exact ones)."},
    {.name = "routes",
     .kind = SPEC_STRINGS,
     .field = "routes",
     .check = spec_check_route,
     .otherwise = "[\"/*\"]",
     .help = "Paths of those names; the longest prefix wins."},
    {.name = "strip_prefix",
     .kind = SPEC_BOOL,
     .field = "strip_prefix",
     .otherwise = "false",
     .help = "Take the route's prefix off before passing on."},
    {.name = "health",
     .kind = SPEC_STRING,
     .flags = SPEC_SHORT,
     .check = spec_check_http_path,
     .read = spec_read_health,
     .help = "Short for readiness and liveness by HTTP on `port`."},
    {.name = "depends_on",
     .kind = SPEC_STRINGS,
     .field = "depends_on",
     .check = spec_check_service_ref,
     .help = "Start only when these are ready (NAME or PROJECT/NAME); circles are refused."},
    LATER("anchor", SPEC_STRING, NULL, "Be on the node of that service, follow it when it moves, restart with it."),
    {.name = "network",
     .kind = SPEC_STRING,
     .field = "network",
     .check = spec_check_name,
     .otherwise = "(the project's own)",
     .help = "Another network of the project, shared by its services that name it; or `host`, the node's own (which [policy] allow_host_network must "
             "allow)."},
    {.name = "aliases", .kind = SPEC_STRINGS, .field = "aliases", .check = spec_check_alias, .help = "Further DNS names on that network."},
    LATER("internal", SPEC_BOOL, "false", "Also on the cluster-wide internal network, as NAME.PROJECT."),
    {.name = "restart", .kind = SPEC_CHOICE, .field = "restart", .choices = restarts, .otherwise = "\"always\"", .help = "When its container ends."},
    {.name = "stop_signal",
     .kind = SPEC_STRING,
     .field = "stop_signal",
     .check = spec_check_signal,
     .otherwise = "\"SIGTERM\"",
     .help = "What asks it to end."},
    {.name = "stop_grace",
     .kind = SPEC_DURATION,
     .field = "stop_grace_ms",
     .min = 0,
     .max = 3600 * 1000,
     .otherwise = "\"10s\"",
     .help = "How long it may take to end before it is killed; rounded up to whole seconds."},
    {.name = "on_partition",
     .kind = SPEC_CHOICE,
     .choices = partitions,
     .otherwise = "\"keep\"",
     .help = "On a node that is cut off: keep running, or stop (for a singleton that must never run twice)."},
    {.name = "pull",
     .kind = SPEC_CHOICE,
     .field = "pull",
     .choices = pulls,
     .otherwise = "(by tag: latest = always, else if-absent)",
     .help = "When the image is pulled."},
    LATER("tls_cert", SPEC_STRING, NULL, "Your own certificate, a file in the infra directory; otherwise ACME."),
    LATER("tls_key", SPEC_STRING, NULL, "Its key."),
    {.name = "labels", .kind = SPEC_MAP, .field = "labels", .check_name = spec_check_label_name, .help = "Labels of its containers."},
    LATER("secret_files", SPEC_STRINGS, NULL, "Secrets also as files /run/secrets/NAME."),
    {.name = "privileged",
     .kind = SPEC_BOOL,
     .field = "privileged",
     .otherwise = "false",
     .help = "All of the host's rights; [policy] allow_privileged must allow it."},
    {.name = "devices",
     .kind = SPEC_STRINGS,
     .field = "devices",
     .check = spec_check_device,
     .help = "Devices, HOST[:CONTAINER[:rwm]]; [policy] allow_devices must name them."},
    {.name = "caps",
     .kind = SPEC_STRINGS,
     .field = "caps",
     .check = spec_check_cap,
     .help = "Capabilities to add; [policy] allow_caps must name them."},
    {.name = "env",
     .kind = SPEC_MAP,
     .field = "env",
     .check_name = spec_check_env_name,
     .help = "Its environment. `${env.X}` is taken from orcactl's environment at deploy; `$${` is a literal `${`."},
    {.name = "resources",
     .kind = SPEC_TABLE,
     .flags = SPEC_ALWAYS,
     .field = "resources",
     .table = &resources_table,
     .help = "Limits and reservations."},
    {.name = "deploy", .kind = SPEC_TABLE, .flags = SPEC_ALWAYS, .field = "deploy", .table = &deploy_table, .help = "How changes are rolled out."},
    {.name = "placement", .kind = SPEC_TABLE, .flags = SPEC_ALWAYS, .field = "placement", .table = &placement_table, .help = "Where it may run."},
    {.name = "readiness", .kind = SPEC_TABLE, .field = "readiness", .table = &readiness_table, .help = "Traffic only while this probe passes."},
    {.name = "startup", .kind = SPEC_TABLE, .field = "startup", .table = &startup_table, .help = "Liveness starts when this probe has passed once."},
    {.name = "liveness", .kind = SPEC_TABLE, .field = "liveness", .table = &liveness_table, .help = "Restarted when this probe fails."},
    {.name = "scale", .kind = SPEC_TABLE, .flags = SPEC_LATER, .table = &scale_table, .help = "Autoscaling."},
    {.name = "volumes",
     .kind = SPEC_TABLES,
     .field = "volumes",
     .table = &spec_volume_table,
     .read = spec_read_volumes,
     .help = "Named volumes; also as strings, \"NAME:/TARGET[:ro]\"."},
    {.name = "volume",
     .kind = SPEC_TABLES,
     .flags = SPEC_SHORT,
     .field = "volumes",
     .table = &spec_volume_table,
     .read = spec_read_volumes,
     .help = "Older spelling of `volumes`; one string or table will do."},
    {.name = "mounts",
     .kind = SPEC_TABLES,
     .field = "mounts",
     .table = &spec_mount_table,
     .read = spec_read_mounts,
     .help = "Files and directories; also as strings, \"SOURCE:/TARGET[:ro]\"."},
    {.name = "containers", .kind = SPEC_TABLES, .flags = SPEC_LATER, .table = &containers_table, .help = "Sidecars."},
    {.name = "proxy", .kind = SPEC_TABLE, .flags = SPEC_ALWAYS, .field = "proxy", .table = &proxy_table, .help = "How its requests are treated."},
    {.name = "backup", .kind = SPEC_TABLE, .flags = SPEC_LATER, .table = &service_backup_table, .help = "Backups."},
    {.name = "build", .kind = SPEC_TABLE, .flags = SPEC_LATER, .table = &build_table, .help = "Building the image."},
    {.name = "assets", .kind = SPEC_TABLES, .flags = SPEC_LATER, .table = &assets_table, .help = "Fetched files."},
    LATER("module", SPEC_STRING, NULL, "The WebAssembly module."),
    LATER("triggers", SPEC_STRINGS, NULL, "What starts the module."),
    {.name = "wasm", .kind = SPEC_TABLE, .flags = SPEC_LATER, .table = &wasm_table, .help = "Limits of the module."},
};
const struct spec_table spec_service_table = {
    "[[service]]", "One service: instances of one image.", &model__service_spec__descriptor, service_keys, COUNT(service_keys), spec_finish_service};

TABLE_LATER(job_table, "[[job]]",
            "To completion: once at deploy, on a schedule, or on demand. Takes the keys of a service that make sense for it, and these.",
            LATER("name", SPEC_STRING, NULL, "Unique in its project."), LATER("image", SPEC_STRING, NULL, "The image."),
            LATER("schedule", SPEC_STRING, NULL, "Cron, seconds first."), LATER("tz", SPEC_STRING, "\"UTC\"", "The schedule's time zone."),
            LATER("overlap", SPEC_STRING, "\"forbid\"", "forbid, allow or replace."), LATER("retries", SPEC_INTEGER, "0", "After a failure."),
            LATER("timeout", SPEC_DURATION, NULL, "Of one run."), LATER("history", SPEC_INTEGER, "20", "Runs to remember."));

static const struct spec_key service_file_keys[] = {
    {.name = "service", .kind = SPEC_TABLES, .table = &spec_service_table, .read = spec_read_services, .help = "Services."},
    {.name = "job", .kind = SPEC_TABLES, .flags = SPEC_LATER, .table = &job_table, .help = "Jobs."},
};
const struct spec_table spec_service_file = {
    "service.toml", "services/PROJECT/service.toml: the services of one project.", NULL, service_file_keys, COUNT(service_file_keys), NULL};

/* ---- cluster.toml ---- */

static const struct spec_key cluster_keys[] = {
    {.name = "name", .kind = SPEC_STRING, .field = "name", .check = spec_check_name, .help = "The cluster's name."},
    LATER("domain", SPEC_STRING, NULL, "orca.DOMAIN serves the API and the dashboard through the proxy."),
    {.name = "log_level", .kind = SPEC_CHOICE, .field = "log_level", .choices = log_levels, .otherwise = "\"info\"", .help = "What the daemons log."},
    {.name = "node_ttl",
     .kind = SPEC_DURATION,
     .field = "node_ttl_ms",
     .min = 100,
     .max = 3600 * 1000,
     .otherwise = "\"1s\"",
     .help = "A node whose agent's conversation with the masters has been gone for this long is unreachable."},
    LATER("acme_email", SPEC_STRING, NULL, "Older spelling of [acme] email."),
    LATER("api_tokens", SPEC_STRINGS, NULL, "Older spelling of [[token]]."),
};
static const struct spec_table cluster_table = {"[cluster]",  "The cluster as a whole.", &model__cluster_spec__descriptor,
                                                cluster_keys, COUNT(cluster_keys),       NULL};

static const struct spec_key api_keys[] = {
    {.name = "listen",
     .kind = SPEC_STRINGS,
     .field = "api_listen",
     .check = spec_check_listen,
     .otherwise = "(none)",
     .help = "Where the REST API listens beside the node's own address, which orcactl's context names and which stays open. Any other than loopback "
             "needs TLS."},
    {.name = "tls",
     .kind = SPEC_BOOL,
     .field = "api_tls",
     .otherwise = "false",
     .read = spec_read_api_tls,
     .help = "By a certificate of the cluster's own CA, which orcactl pins (`true` is not supported yet)."},
};
static const struct spec_table api_table = {"[api]", "The REST API.", &model__cluster_spec__descriptor, api_keys, COUNT(api_keys), spec_finish_api};

static const struct spec_table node_gpu_table = {
    "[[node.gpus]]", "Graphics processors of the node.", &model__gpu__descriptor, gpu_keys, COUNT(gpu_keys), NULL};
static const struct spec_key node_keys[] = {
    {.name = "name", .kind = SPEC_STRING, .field = "name", .check = spec_check_name, .help = "The node's name; or its address."},
    {.name = "address", .kind = SPEC_STRING, .field = "address", .check = spec_check_host, .help = "The node's address."},
    {.name = "labels", .kind = SPEC_MAP, .field = "labels", .check_name = spec_check_label_name, .help = "Labels for placement."},
    {.name = "gpus", .kind = SPEC_TABLES, .field = "gpus", .table = &node_gpu_table, .help = "Its graphics processors."},
};
static const struct spec_table node_table = {"[[node]]",
                                             "Labels and hardware of a node. Nodes join by token, not by being named here.",
                                             &model__node_decl__descriptor,
                                             node_keys,
                                             COUNT(node_keys),
                                             spec_finish_node};

static const struct spec_key cluster_proxy_keys[] = {
    {.name = "http_port", .kind = SPEC_INTEGER, .field = "http_port", .min = 1, .max = 65535, .otherwise = "(node.toml's, 80)", .help = "HTTP."},
    LATER("https_port", SPEC_INTEGER, "(node.toml's, 443)", "HTTPS."),
    {.name = "trusted_proxies",
     .kind = SPEC_STRINGS,
     .field = "trusted_proxies",
     .check = spec_check_cidr,
     .help = "Networks whose X-Forwarded-For is believed."},
};
static const struct spec_table cluster_proxy_table = {"[proxy]",          "The proxies of all nodes.", &model__cluster_spec__descriptor,
                                                      cluster_proxy_keys, COUNT(cluster_proxy_keys),   NULL};

static const struct spec_key logs_keys[] = {
    {.name = "max_size",
     .kind = SPEC_SIZE,
     .field = "max_size",
     .min = 4096,
     .max = INT64_C(1) << 40,
     .otherwise = "\"10Mi\"",
     .help = "Of one log file of a container."},
    {.name = "max_files", .kind = SPEC_INTEGER, .field = "max_files", .min = 1, .max = 1000, .otherwise = "3", .help = "Files kept of a container."},
    LATER("forward", SPEC_TABLES, NULL, "Where logs are sent too."),
};
static const struct spec_table logs_table = {
    "[logs]", "The logs of containers that are made from then on.", &model__log_rotation__descriptor, logs_keys, COUNT(logs_keys), NULL};

static const struct spec_key policy_keys[] = {
    {.name = "allow_privileged", .kind = SPEC_BOOL, .field = "allow_privileged", .otherwise = "false", .help = "Services may be privileged."},
    {.name = "allow_host_network",
     .kind = SPEC_BOOL,
     .field = "allow_host_network",
     .otherwise = "false",
     .help = "Services may use network = \"host\"."},
    {.name = "allow_devices", .kind = SPEC_STRINGS, .field = "allow_devices", .check = spec_check_device, .help = "Devices that services may use."},
    {.name = "allow_host_paths",
     .kind = SPEC_STRINGS,
     .field = "allow_host_paths",
     .check = spec_check_absolute,
     .help = "Host paths that services may mount, with all that lies below them."},
    {.name = "allow_caps", .kind = SPEC_STRINGS, .field = "allow_caps", .check = spec_check_cap, .help = "Capabilities that services may add."},
};
static const struct spec_table policy_table = {"[policy]",
                                               "What services may ask for; nothing by default. Checked by the apiserver and again by the agent.",
                                               &model__policy__descriptor,
                                               policy_keys,
                                               COUNT(policy_keys),
                                               NULL};

TABLE_LATER(acme_table, "[acme]", "Certificates.", LATER("email", SPEC_STRING, NULL, "The account's."),
            LATER("directory", SPEC_STRING, NULL, "The ACME server."), LATER("ca_file", SPEC_STRING, NULL, "A private ACME server's root."),
            LATER("challenge", SPEC_STRING, NULL, "http-01, tls-alpn-01 or dns-01."),
            LATER("dns_hook", SPEC_STRING, NULL, "dns-01: called with present|cleanup NAME VALUE."));
TABLE_LATER(token_table, "[[token]]", "API tokens; or `orcactl token create`.", LATER("name", SPEC_STRING, NULL, "Its name."),
            LATER("value", SPEC_STRING, NULL, "`${env.X}`; stored hashed."), LATER("role", SPEC_STRING, NULL, "admin, deployer or viewer."),
            LATER("projects", SPEC_STRINGS, NULL, "Empty: all."));
TABLE_LATER(backup_target_table, "[[backup.targets]]", "Where backups go.", LATER("type", SPEC_STRING, NULL, "local or s3."),
            LATER("path", SPEC_STRING, NULL, "local: where."), LATER("endpoint", SPEC_STRING, NULL, "s3: its address."),
            LATER("bucket", SPEC_STRING, NULL, "s3: the bucket."), LATER("region", SPEC_STRING, NULL, "s3: the region."),
            LATER("access_key", SPEC_STRING, NULL, "s3: `${secrets.X}`."), LATER("secret_key", SPEC_STRING, NULL, "s3: `${secrets.X}`."));
TABLE_LATER(backup_table, "[backup]", "Backups of volumes.", LATER("enabled", SPEC_BOOL, NULL, "At all."),
            LATER("schedule", SPEC_STRING, NULL, "Cron, seconds first."), LATER("retention_days", SPEC_INTEGER, NULL, "Kept this long."),
            LATER("verify", SPEC_STRING, NULL, "Restore into a scratch volume and compare."),
            {.name = "targets", .kind = SPEC_TABLES, .flags = SPEC_LATER, .table = &backup_target_table, .help = "Where to."});
TABLE_LATER(rebalance_table, "[rebalance]", "Moving instances between nodes.", LATER("enabled", SPEC_BOOL, "false", "At all."),
            LATER("memory_threshold_percent", SPEC_INTEGER, NULL, "From here on."), LATER("memory_difference", SPEC_SIZE, NULL, "Between two nodes."),
            LATER("sustained", SPEC_DURATION, NULL, "For this long."), LATER("cooldown", SPEC_DURATION, NULL, "Between two moves."),
            LATER("max_moves", SPEC_INTEGER, NULL, "At once."));
TABLE_LATER(gc_table, "[gc]", "Cleaning up images and volumes.", LATER("schedule", SPEC_STRING, NULL, "Cron, seconds first."),
            LATER("keep_images", SPEC_INTEGER, NULL, "Per repository, besides those in use."),
            LATER("grace", SPEC_DURATION, NULL, "Younger ones stay."), LATER("volumes", SPEC_BOOL, "false", "Remove orphaned volumes too."),
            LATER("dry_run", SPEC_BOOL, "false", "Only say what would go."));
TABLE_LATER(alerts_table, "[observability.alerts]", "Who is told.", LATER("webhook", SPEC_STRING, NULL, "An address."),
            LATER("email", SPEC_STRING, NULL, "An address."));
TABLE_LATER(observability_table, "[observability]", "Telemetry.", LATER("otlp_endpoint", SPEC_STRING, NULL, "An OpenTelemetry collector."),
            {.name = "alerts", .kind = SPEC_TABLE, .flags = SPEC_LATER, .table = &alerts_table, .help = "Alerts."});
TABLE_LATER(ai_alerts_table, "[ai.alerts]", "Analysis of what happens.", LATER("enabled", SPEC_BOOL, "false", "At all."),
            LATER("analysis_interval_secs", SPEC_INTEGER, NULL, "How often."));
TABLE_LATER(ai_remediate_table, "[ai.auto_remediate]", "What it may do by itself.", LATER("restart_crashed", SPEC_BOOL, "false", "Restart."),
            LATER("scale_on_pressure", SPEC_BOOL, "false", "Scale."), LATER("rollback_on_failure", SPEC_BOOL, "false", "Roll back."));
TABLE_LATER(ai_table, "[ai]", "The assistant.", LATER("provider", SPEC_STRING, NULL, "Any OpenAI-compatible endpoint."),
            LATER("endpoint", SPEC_STRING, NULL, "Its address."), LATER("model", SPEC_STRING, NULL, "Which model."),
            LATER("api_key", SPEC_STRING, NULL, "`${secrets.X}`."),
            {.name = "alerts", .kind = SPEC_TABLE, .flags = SPEC_LATER, .table = &ai_alerts_table, .help = "Alerts."},
            {.name = "auto_remediate", .kind = SPEC_TABLE, .flags = SPEC_LATER, .table = &ai_remediate_table, .help = "What it may do."});
TABLE_LATER(network_table, "[network]", "The network between nodes.", LATER("overlay", SPEC_BOOL, NULL, "VXLAN."),
            LATER("encrypt", SPEC_STRING, NULL, "\"wireguard\"."), LATER("subnet", SPEC_STRING, NULL, "The cluster's."));

static const struct spec_key cluster_file_keys[] = {
    {.name = "cluster", .kind = SPEC_TABLE, .table = &cluster_table, .help = "The cluster."},
    {.name = "api", .kind = SPEC_TABLE, .table = &api_table, .help = "The REST API."},
    {.name = "node", .kind = SPEC_TABLES, .field = "nodes", .table = &node_table, .help = "Nodes."},
    {.name = "acme", .kind = SPEC_TABLE, .flags = SPEC_LATER, .table = &acme_table, .help = "Certificates."},
    {.name = "proxy", .kind = SPEC_TABLE, .table = &cluster_proxy_table, .help = "The proxies."},
    {.name = "token", .kind = SPEC_TABLES, .flags = SPEC_LATER, .table = &token_table, .help = "API tokens."},
    {.name = "backup", .kind = SPEC_TABLE, .flags = SPEC_LATER, .table = &backup_table, .help = "Backups."},
    {.name = "rebalance", .kind = SPEC_TABLE, .flags = SPEC_LATER, .table = &rebalance_table, .help = "Rebalancing."},
    {.name = "gc", .kind = SPEC_TABLE, .flags = SPEC_LATER, .table = &gc_table, .help = "Cleaning up."},
    {.name = "logs", .kind = SPEC_TABLE, .field = "logs", .table = &logs_table, .help = "Container logs."},
    {.name = "observability", .kind = SPEC_TABLE, .flags = SPEC_LATER, .table = &observability_table, .help = "Telemetry."},
    {.name = "policy", .kind = SPEC_TABLE, .field = "policy", .table = &policy_table, .help = "What services may ask for."},
    {.name = "ai", .kind = SPEC_TABLE, .flags = SPEC_LATER, .table = &ai_table, .help = "The assistant."},
    {.name = "network", .kind = SPEC_TABLE, .flags = SPEC_LATER, .table = &network_table, .help = "The network."},
};
const struct spec_table spec_cluster_file = {"cluster.toml",
                                             "The cluster's own settings. They take effect with `orcactl deploy`, without restarting anything.",
                                             &model__cluster_spec__descriptor,
                                             cluster_file_keys,
                                             COUNT(cluster_file_keys),
                                             NULL};
