/* What may come next on a command line: the shells' completion scripts ask `orcactl --complete WORD...`, whose last word is the one being typed.
 *
 * A candidate a line, "WORD<TAB>what it is"; the line ":files" says that a file name is wanted. Verbs and options come from the command table, names
 * of services, secrets and jobs from the cluster of the context, if it answers within two seconds. Nothing is ever said on stderr.
 * Threads: none. */
#ifndef ORCA_ORCACTL_COMPLETE_H
#define ORCA_ORCACTL_COMPLETE_H

int complete_print(int argc, char **argv); /* the exit code */

#endif
