/* Help, man page and completion scripts, all from the tables. */
#include "command.h"
#include <stdio.h>

static const char *const exit_text =
    "Exit status: 0 done, 1 refused or failed, 2 wrong usage, 3 no broker, 4 damage or difference "
    "found.";

void
print_usage(FILE *to)
{
    fprintf(to, "usage: weir [--broker URL] [--json] COMMAND [ARG...]\n");
    const char *group = "";
    for (size_t i = 0; i < command_count; i++) {
        const struct command *c = &commands[i];
        if (strcmp(group, c->group) != 0)
            fprintf(to, "\n%s\n", group = c->group);
        char head[64];
        snprintf(head, sizeof head, "%s %s", c->name, c->operands);
        fprintf(to, "  %-34s %s\n", head, c->summary);
    }
    fprintf(to, "\n'weir help COMMAND' or 'weir COMMAND --help' tells its options.\n%s\n",
            exit_text);
}

static void
print_options(FILE *to, const struct option *options)
{
    for (; options->name; options++) {
        char head[64];
        snprintf(head, sizeof head, "--%s%s%s", options->name, options->argument ? " " : "",
                 options->argument ? options->argument : "");
        fprintf(to, "  %-24s %s", head, options->help);
        if (options->fallback)
            fprintf(to, " (default: %s)", options->fallback);
        fputc('\n', to);
    }
}

/* Paragraphs folded at 90 columns. */
static void
print_folded(FILE *to, const char *text)
{
    size_t column = 0;
    for (const char *p = text; *p;) {
        size_t len = strcspn(p, " ");
        if (column && column + 1 + len > 90) {
            fputc('\n', to);
            column = 0;
        }
        column += (size_t)fprintf(to, "%s%.*s", column ? " " : "", (int)len, p);
        p += len + (p[len] == ' ');
    }
    fputc('\n', to);
}

void
print_command_help(FILE *to, const struct command *c)
{
    fprintf(to, "usage: weir %s%s%s%s\n\n%c%s.\n", c->name, c->operands[0] ? " " : "", c->operands,
            c->options[0].name ? " [OPTION...]" : "", c->summary[0] - ('a' - 'A'), c->summary + 1);
    if (c->about) {
        fputc('\n', to);
        print_folded(to, c->about);
    }
    if (c->options[0].name) {
        fprintf(to, "\nOptions\n");
        print_options(to, c->options);
    }
    fprintf(to, "\nEverywhere\n");
    print_options(to, global_options);
    fprintf(to, "\n%s\n", exit_text);
}

static void
man_text(FILE *to, const char *text)
{
    for (const char *p = text; *p; p++) {
        if (*p == '-' || *p == '\\')
            fputc('\\', to);
        fputc(*p, to);
        if (*p == '\\')
            fputc('e', to);
    }
}

static void
man_options(FILE *to, const struct option *options)
{
    for (; options->name; options++) {
        fprintf(to, ".TP\n.B \\-\\-");
        man_text(to, options->name);
        if (options->argument)
            fprintf(to, " \\fI%s\\fR", options->argument);
        fputc('\n', to);
        man_text(to, options->help);
        if (options->fallback) {
            fprintf(to, " (default: ");
            man_text(to, options->fallback);
            fputc(')', to);
        }
        fprintf(to, ".\n");
    }
}

void
print_man_page(FILE *to)
{
    fprintf(
        to,
        ".TH WEIR 1 \"\" \"weir %s\" \"User Commands\"\n.SH NAME\nweir \\- command line of the "
        "Weir fan\\-out broker\n.SH SYNOPSIS\n.B weir\n[\\-\\-broker \\fIURL\\fR] [\\-\\-json] "
        "\\fICOMMAND\\fR [\\fIARG\\fR...]\n.SH DESCRIPTION\nMakes streams, puts and reads change "
        "records, keeps checkpoints, exports NDJSON, and looks into data directories.\n.SH "
        "OPTIONS\n",
        weir_version());
    man_options(to, global_options);
    const char *group = "";
    for (size_t i = 0; i < command_count; i++) {
        const struct command *c = &commands[i];
        if (strcmp(group, c->group) != 0)
            fprintf(to, ".SH \"%s\"\n", group = c->group);
        fprintf(to, ".SS weir ");
        man_text(to, c->name);
        fprintf(to, " \\fI%s\\fR\n%c", c->operands, c->summary[0] - ('a' - 'A'));
        man_text(to, c->summary + 1);
        fprintf(to, ".\n");
        if (c->about) {
            fprintf(to, ".PP\n");
            man_text(to, c->about);
            fputc('\n', to);
        }
        man_options(to, c->options);
    }
    fprintf(to, ".SH \"EXIT STATUS\"\n");
    man_text(to, exit_text + strlen("Exit status: "));
    fprintf(to,
            "\n.SH ENVIRONMENT\n.TP\n.B WEIR_BROKER\nThe broker's address where \\-\\-broker is "
            "not given.\n.SH \"SEE ALSO\"\n.BR weir\\-broker (1)\n");
}

static void
complete_bash(FILE *to)
{
    fprintf(to, "_weir() {\n    local word=${COMP_WORDS[COMP_CWORD]} command= i\n"
                "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
                "        [[ ${COMP_WORDS[i]} == -* ]] || { command=${COMP_WORDS[i]}; break; }\n"
                "    done\n    case $command in\n    '') COMPREPLY=($(compgen -W '");
    for (size_t i = 0; i < command_count; i++)
        fprintf(to, "%s ", commands[i].name);
    for (const struct option *o = global_options; o->name; o++)
        fprintf(to, "--%s ", o->name);
    fprintf(to, "' -- \"$word\")) ;;\n");
    for (size_t i = 0; i < command_count; i++) {
        fprintf(to, "    %s) COMPREPLY=($(compgen -W '", commands[i].name);
        for (const struct option *o = commands[i].options; o->name; o++)
            fprintf(to, "--%s ", o->name);
        if (strncmp(commands[i].operands, "STREAM", 6) == 0)
            fprintf(to, "'\"$(weir list 2>/dev/null)\"'");
        fprintf(to, "' -- \"$word\") $(compgen -f -- \"$word\")) ;;\n");
    }
    fprintf(to, "    esac\n}\ncomplete -F _weir weir\n");
}

static void
complete_zsh(FILE *to)
{
    fprintf(to, "#compdef weir\n_weir() {\n    local -a commands\n    commands=(\n");
    for (size_t i = 0; i < command_count; i++)
        fprintf(to, "        '%s:%s'\n", commands[i].name, commands[i].summary);
    fprintf(to, "    )\n    if (( CURRENT == 2 )); then\n        _describe command commands\n"
                "        return\n    fi\n    case $words[2] in\n");
    for (size_t i = 0; i < command_count; i++) {
        fprintf(to, "    %s) _arguments ", commands[i].name);
        for (const struct option *o = commands[i].options; o->name; o++)
            fprintf(to, "'--%s%s' ", o->name, o->argument ? "=" : "");
        fprintf(to, "'*:operand:_files' ;;\n");
    }
    fprintf(to, "    esac\n}\n_weir \"$@\"\n");
}

static void
complete_fish(FILE *to)
{
    fprintf(to, "complete -c weir -f\n");
    for (size_t i = 0; i < command_count; i++) {
        const struct command *c = &commands[i];
        fprintf(to, "complete -c weir -n __fish_use_subcommand -a %s -d '%s'\n", c->name,
                c->summary);
        for (const struct option *o = c->options; o->name; o++)
            fprintf(to, "complete -c weir -n '__fish_seen_subcommand_from %s' -l %s%s\n", c->name,
                    o->name, o->argument ? " -r" : "");
    }
}

bool
print_completion(FILE *to, const char *shell)
{
    if (strcmp(shell, "bash") == 0)
        complete_bash(to);
    else if (strcmp(shell, "zsh") == 0)
        complete_zsh(to);
    else if (strcmp(shell, "fish") == 0)
        complete_fish(to);
    else
        return false;
    return true;
}
