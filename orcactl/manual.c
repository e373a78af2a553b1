#include "orcactl/manual.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "common/daemon/daemon.h"
#include "orcactl/ctl.h"

/* Text of the table as roff: nothing in it is a request, a hyphen stays one that can be copied, `this` is bold. */
static void print_text(const char *text) {
  bool bold = false, at_start = true;
  for (const char *p = text; *p; p++) {
    if (at_start && (*p == '.' || *p == '\''))
      fputs("\\&", stdout);
    at_start = *p == '\n';
    if (*p == '`') {
      bold = !bold;
      fputs(bold ? "\\fB" : "\\fR", stdout);
    } else if (*p == '\\') {
      fputs("\\e", stdout);
    } else if (*p == '-') {
      fputs("\\-", stdout);
    } else {
      putchar(*p);
    }
  }
}

static void print_option(const struct ctl_option *o) {
  printf(".TP\n");
  if (o->letter)
    printf("\\fB\\-%c\\fR, ", o->letter);
  printf("\\fB\\-\\-");
  print_text(o->name);
  printf("\\fR");
  if (o->value) {
    printf(" \\fI");
    print_text(o->value);
    printf("\\fR");
  }
  printf("\n");
  print_text(o->help);
  printf("\n");
}

static void print_command(const struct ctl_command *c) {
  printf(".SS \"orcactl ");
  print_text(c->name);
  if (*c->args) {
    printf(" ");
    print_text(c->args);
  }
  printf("\"\n");
  print_text(c->summary);
  printf(".\n");
  if (c->details) {
    printf(".PP\n");
    print_text(c->details);
    printf("\n");
  }
  for (size_t i = 0; i < CTL_OPTIONS_MAX && c->options[i].name; i++)
    print_option(&c->options[i]);
}

int manual_print(void) {
  printf(".TH ORCACTL 1 \"\" \"orca " ORCA_VERSION "\" \"orca\"\n"
         ".SH NAME\norcactl \\- run services in containers on one or more machines\n"
         ".SH SYNOPSIS\n.B orcactl\n.I VERB\n.RI [ NAME \" ...] [options]\"\n"
         ".SH DESCRIPTION\nTalks to a cluster's API: what the infra directory says is sent to it, what runs is shown, explained and changed.\n"
         "A service is named by \\fINAME\\fR, or by \\fIPROJECT\\fR/\\fINAME\\fR where several projects have one of that name.\n"
         ".SH OPTIONS\nGood before and after the verb.\n");
  for (size_t i = 0; i < ctl_global_count; i++)
    print_option(&ctl_globals[i]);
  printf(".SH VERBS\n");
  for (size_t i = 0; i < ctl_command_count; i++)
    if (ctl_commands[i].run)
      print_command(&ctl_commands[i]);
  printf(".SH EXIT STATUS\n0: done. 1: failed. 2: wrong usage. 3: the cluster was not reached. 4: not allowed.\n"
         ".SH ENVIRONMENT\n"
         ".TP\n.B ORCA_CONTEXT\nThe cluster to talk to, where \\fB\\-\\-context\\fR is not given.\n"
         ".TP\n.B ORCA_DIR\nThe infra directory, where \\fB\\-C\\fR is not given.\n"
         ".TP\n.B ORCA_HOME\nWhere contexts and tokens are kept; else \\fI~/.orca\\fR.\n"
         ".TP\n.B NO_COLOR\nNo colours.\n"
         ".SH FILES\n"
         ".TP\n.I ~/.orca/config.json\nThe contexts.\n"
         ".TP\n.I ~/.orca/tokens/NAME\nThe token of a context; refused when others can read it.\n"
         ".SH SEE ALSO\n.BR orca (7),\n.BR orca-apiserver (8)\n");
  return CTL_OK;
}
