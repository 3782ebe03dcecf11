#!/bin/bash
# Starts PostgreSQL, and makes the database at the first start. Understands
# POSTGRES_PASSWORD (needed), POSTGRES_USER, POSTGRES_DB, POSTGRES_INITDB_ARGS
# and POSTGRES_HOST_AUTH_METHOD, the first three also with _FILE, and
# /docker-entrypoint-initdb.d/*.{sh,sql,sql.gz}.
set -euo pipefail

say() { printf 'entrypoint: %s\n' "$*"; }
die() { say "$*" >&2; exit 1; }

setting() { # NAME DEFAULT
    local file=$1_FILE
    if [ -n "${!file:-}" ]; then cat "${!file}"; else printf %s "${!1:-$2}"; fi
}

# Makes the database in a folder beside its place and moves it there when it is
# complete, so that a start killed in here is simply done again.
initialise() {
    local user password database method new=$PGDATA/.initialising file
    user=$(setting POSTGRES_USER postgres)
    password=$(setting POSTGRES_PASSWORD '')
    database=$(setting POSTGRES_DB "$user")
    method=${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}
    [ -n "$password" ] || [ "$method" = trust ] ||
        die "the database is not initialised and no password is given: set POSTGRES_PASSWORD"
    say "initialising the database"
    find "$PGDATA" -mindepth 1 -delete
    mkdir -m 700 "$new"
    eval "local arguments=(${POSTGRES_INITDB_ARGS:-})"
    initdb -D "$new" --username="$user" --auth-local=trust --auth-host="$method" \
        ${password:+--pwfile=<(printf '%s\n' "$password")} "${arguments[@]}"
    printf 'host all all all %s\n' "$method" >>"$new/pg_hba.conf"
    pg_ctl -D "$new" -w -o "-c listen_addresses='' -c unix_socket_directories=/run/postgresql" start
    run() { psql -v ON_ERROR_STOP=1 --no-psqlrc -q -U "$user" "$@"; }
    [ "$database" = postgres ] || run -d postgres -v name="$database" <<<'CREATE DATABASE :"name";'
    for file in /docker-entrypoint-initdb.d/*; do
        case $file in
            *.sh) say "running $file"; . "$file" ;;
            *.sql) say "running $file"; run -d "$database" -f "$file" ;;
            *.sql.gz) say "running $file"; gunzip -c "$file" | run -d "$database" ;;
        esac
    done
    pg_ctl -D "$new" -w -m fast stop
    rm -f "$new/postmaster.opts"
    find "$new" -mindepth 1 -maxdepth 1 ! -name PG_VERSION -exec mv -t "$PGDATA" {} +
    sync -f "$PGDATA"
    mv "$new/PG_VERSION" "$PGDATA"
    rmdir "$new"
    say "the database is initialised"
}

if [ "${1:0:1}" = - ]; then set -- postgres "$@"; fi
if [ "${1:-}" = postgres ]; then
    if [ "$(id -u)" = 0 ]; then
        mkdir -p "$PGDATA" /run/postgresql
        chmod 700 "$PGDATA"
        find "$PGDATA" /run/postgresql ! -user postgres -exec chown postgres:postgres {} +
        exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
    fi
    [ -s "$PGDATA/PG_VERSION" ] || initialise
    # PostgreSQL listens on loopback unless told otherwise.
    shift
    set -- postgres -c listen_addresses='*' "$@"
fi
exec "$@"
