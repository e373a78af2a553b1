/* The one table of commands. */
#include "orcactl/ctl.h"

/* clang-format off */
#define PROJECT {"project", 'p', "PROJECT", "only this project"}
#define SECRETS_OF {"project", 'p', "PROJECT", "for this project's services; else for all"}

const struct ctl_command ctl_commands[] = {
  {"deploy", "[NAME...]", 0, -1, cmd_deploy, "make the cluster run what the infra directory says",
   "Reads cluster.toml and services/PROJECT/service.toml, sends what they say and waits, with a line per service, until each is ready or has failed.\n"
   "What has not changed is not touched. With NAMEs only those services are sent. Exit code 1 when a service failed.",
   {{"dry-run", 'n', NULL, "only say what would change, like `orcactl plan`"},
    {"no-wait", 0, NULL, "don't wait until the services are ready"},
    {"prune", 0, NULL, "remove services that are no longer in the infra directory"}}},
  {"plan", "[NAME...]", 0, -1, cmd_plan, "what deploy would do, as a diff",
   NULL, {{"prune", 0, NULL, "as if deploy were given --prune"}}},
  {"status", "", 0, 0, cmd_status, "all services and how they are", "The first line says whether all is well.",
   {PROJECT, {"watch", 'w', NULL, "keep it on the screen, up to date"}}},
  {"ps", "[NAME...]", 0, -1, cmd_ps, "every instance: its state, restarts, node, address", NULL, {PROJECT}},
  {"inspect", "NAME", 1, 1, cmd_inspect, "everything about one service", "NAME is a service's name, or PROJECT/NAME.", {{0}}},
  {"explain", "NAME", 1, 1, cmd_explain, "why each instance is where it is, or why it is pending", NULL, {{0}}},
  {"history", "NAME", 1, 1, cmd_history, "the revisions of a service, newest first", NULL, {{0}}},
  {"scale", "NAME N", 2, 2, cmd_scale, "run N instances", "A later deploy keeps this number, unless its file names another one than before.", {{0}}},
  {"stop", "NAME...", 0, -1, cmd_stop, "run nothing, keep the spec",
   NULL, {{"all", 0, NULL, "every service of the cluster"}}},
  {"start", "NAME...", 1, -1, cmd_start, "run a stopped service again", NULL, {{0}}},
  {"restart", "NAME...", 1, -1, cmd_restart, "replace all instances, rolling", NULL, {{0}}},
  {"redeploy", "NAME...", 1, -1, cmd_redeploy, "pull the image again and roll", NULL, {{0}}},
  {"rollback", "NAME", 1, 1, cmd_rollback, "go back to an earlier revision",
   NULL, {{"to", 0, "REVISION", "which one (see `orcactl history`); else the one before"}}},
  {"rm", "NAME...", 1, -1, cmd_rm, "stop a service; with --purge, forget it",
   NULL, {{"purge", 0, NULL, "forget its spec and revisions too"}}},
  {"nodes", "", 0, 0, cmd_nodes, "the nodes: state, capacity, use", NULL, {{0}}},
  {"events", "", 0, 0, cmd_events, "what has happened in the cluster",
   NULL, {PROJECT, {"follow", 'f', NULL, "go on as things happen"}, {"since", 0, "WHEN", "10m, 2h, or 2026-01-02T03:04:05Z"}, {"tail", 'n', "N", "only the newest N (100)"}}},
  {"exec", "NAME [--] COMMAND...", 2, -1, cmd_exec, "run a command in a container of a service",
   "NAME is a service's name, or PROJECT/NAME. In its lowest ready instance, or in --instance. With -it: a terminal, `orcactl exec api -it -- sh`.\n"
   "The exit code is the command's own (126 or 127 when it could not be run, as Docker says), 128 and the signal's number when orcactl was ended by\n"
   "one, 255 when the connection was lost after it had begun; before it has begun as everywhere. The command's arguments and variables travel in the\n"
   "request's path: secrets are better given on its stdin.",
   {{"stdin", 'i', NULL, "the command reads orcactl's stdin; else it has none"},
    {"tty", 't', NULL, "on a terminal"},
    {"instance", 0, "NUMBER", "in this instance (see `orcactl ps`)"},
    {"user", 'u', "USER", "as this user (NAME, or UID:GID); else the container's own"},
    {"workdir", 'w', "DIR", "in this folder; else the container's own"},
    {"env", 'e', "KEY=VALUE", "with this variable; may be given several times"}}},
  {"secrets", "VERB", 0, 0, NULL, "values that no file may hold",
   "Kept sealed by the cluster. A service names one as ${secrets.NAME} in its env, or under secret_files. The project's own come before those of the whole cluster.", {{0}}},
  {"secrets set", "NAME [VALUE]", 1, 2, cmd_secrets_set, "keep a value; from the terminal (without echo) or stdin when it is not given",
   "A VALUE in the arguments can be read in the list of processes and in the shell's history while it is there. From stdin one line end at its end is left away.",
   {SECRETS_OF}},
  {"secrets list", "", 0, 0, cmd_secrets_list, "the names, how old they are, and who uses them; never a value", NULL, {PROJECT}},
  {"secrets rm", "NAME...", 1, -1, cmd_secrets_rm, "forget values", NULL, {SECRETS_OF}},
  {"secrets import", "", 0, 0, cmd_secrets_import, "keep all of a .env file, or none",
   "Lines of NAME=VALUE; values may stand in 'single' or \"double\" quotes, and go over several lines in them.",
   {SECRETS_OF, {"file", 'f', "FILE", "the .env file; - is stdin"}}},
  {"secrets rotate-key", "", 0, 0, cmd_secrets_rotate_key, "seal all of them again, under a new key", NULL, {{0}}},
  {"version", "", 0, 0, cmd_version, "versions of orcactl and of the cluster", NULL, {{0}}},
  {"init", "", 0, 0, cmd_init, "make this machine a master",
   "Makes keys, the cluster's CA, master.key, the first admin token and node.toml, and a context for orcactl (--context NAME, else \"default\").\n"
   "Then start the daemons: `systemctl enable --now orca-master.target`.",
   {{"name", 0, "NAME", "of this node; else the host's name"},
    {"address", 0, "IP", "where other nodes reach it; else 127.0.0.1"},
    {"root", 0, "DIR", "keep everything in DIR; else /etc/orca, /var/lib/orca, /run/orca"},
    {"docker", 0, "SOCKET", "Docker's socket; else /run/docker.sock"},
    {"http-port", 0, "PORT", "of the proxy; else 80"},
    {"https-port", 0, "PORT", "of the proxy; else 443"},
    {"use", 0, NULL, "make the new context the current one"},
    {"free-ports", 0, NULL, "where a port is taken, take a free one"}}},
  {"install-service", "", 0, 0, cmd_install_service, "write and enable systemd's units, where orca is not a package",
   "Makes the users and folders of the daemons, writes their units for the programs beside this orcactl, and enables the target. As root, after `orcactl init`.",
   {{"role", 0, "ROLE", "master or worker; else as node.toml says"},
    {"print", 0, NULL, "only print what would be written"},
    {"start", 0, NULL, "start it too"}}},
  {"completion", "SHELL", 1, 1, cmd_completion, "completion for bash, zsh or fish, as a script",
   "Packages install it. Else, for bash: `orcactl completion bash >/etc/bash_completion.d/orcactl`; zsh: into a file _orcactl in a folder of $fpath;\n"
   "fish: `orcactl completion fish >~/.config/fish/completions/orcactl.fish`.", {{0}}},
  {"help", "[VERB]", 0, 2, cmd_help, "this, or what a verb does", NULL, {{0}}},
};
/* clang-format on */
const size_t ctl_command_count = sizeof ctl_commands / sizeof ctl_commands[0];
