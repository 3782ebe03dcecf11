#!/bin/bash
# Starts MariaDB, and makes the database at the first start. Understands what the
# official image does, under the names MYSQL_… and MARIADB_…, each also with
# _FILE (the value is in that file):
#   ROOT_PASSWORD | ALLOW_EMPTY_ROOT_PASSWORD | RANDOM_ROOT_PASSWORD, ROOT_HOST,
#   DATABASE, USER, PASSWORD; /docker-entrypoint-initdb.d/*.{sh,sql,sql.gz}
set -euo pipefail
data=/var/lib/mysql
socket=/run/mysqld/mysqld.sock

say() { printf '%s [entrypoint] %s\n' "$(date -Is)" "$*"; }
die() { say "$*" >&2; exit 1; }

# The value of a variable, whichever of its four names was used.
setting() {
    local prefix name
    for prefix in MARIADB MYSQL; do
        name=${prefix}_$1
        if [ -n "${!name:-}" ]; then printf %s "${!name}"; return; fi
        name=${name}_FILE
        if [ -n "${!name:-}" ]; then cat "${!name}"; return; fi
    done
}

# The argument as an SQL string.
quoted() { local s=${1//\\/\\\\}; printf "'%s'" "${s//\'/\\\'}"; }

initialise() {
    local root_password root_host database user password server
    root_password=$(setting ROOT_PASSWORD)
    if [ -z "$root_password" ] && [ -n "$(setting RANDOM_ROOT_PASSWORD)" ]; then
        root_password=$(head -c 24 /dev/urandom | base64)
        say "root password: $root_password"
    fi
    [ -n "$root_password$(setting ALLOW_EMPTY_ROOT_PASSWORD)$(setting ALLOW_EMPTY_PASSWORD)" ] ||
        die "the database is not initialised and no password is given: set MYSQL_ROOT_PASSWORD, MYSQL_ALLOW_EMPTY_PASSWORD or MYSQL_RANDOM_ROOT_PASSWORD"
    root_host=$(setting ROOT_HOST)
    database=$(setting DATABASE) user=$(setting USER) password=$(setting PASSWORD)

    say "initialising the database"
    # A start that was killed in here is recognised and done again.
    : >"$data/.initialising"
    mariadb-install-db --datadir="$data" --auth-root-authentication-method=normal --skip-test-db --rpm --skip-log-bin >/dev/null
    "$@" --skip-networking --socket="$socket" --default-time-zone=SYSTEM --wsrep-on=off &
    server=$!
    trap 'kill "$server" 2>/dev/null; wait "$server"; exit 143' TERM INT
    until mariadb-admin --no-defaults --protocol=socket -uroot -S "$socket" ping >/dev/null 2>&1; do
        kill -0 "$server" 2>/dev/null || die "the server ended while the database was being initialised"
        sleep 0.1
    done
    sql() { mariadb --no-defaults --protocol=socket -uroot -S "$socket" "$@"; }
    {
        if [ -n "$database" ]; then echo "CREATE DATABASE IF NOT EXISTS \`${database//\`/\`\`}\`;"; fi
        if [ -n "$user" ]; then
            echo "CREATE USER IF NOT EXISTS $(quoted "$user")@'%' IDENTIFIED BY $(quoted "$password");"
            if [ -n "$database" ]; then echo "GRANT ALL ON \`${database//\`/\`\`}\`.* TO $(quoted "$user")@'%';"; fi
        fi
    } | sql
    for file in /docker-entrypoint-initdb.d/*; do
        case $file in
            *.sh) say "running $file"; . "$file" ;;
            *.sql) say "running $file"; sql ${database:+"$database"} <"$file" ;;
            *.sql.gz) say "running $file"; gunzip -c "$file" | sql ${database:+"$database"} ;;
        esac
    done
    {
        echo "CREATE USER IF NOT EXISTS 'root'@$(quoted "${root_host:-%}") IDENTIFIED BY $(quoted "$root_password");"
        echo "GRANT ALL ON *.* TO 'root'@$(quoted "${root_host:-%}") WITH GRANT OPTION;"
        echo "ALTER USER 'root'@'localhost' IDENTIFIED BY $(quoted "$root_password");"
    } | sql
    kill "$server"
    wait "$server" || die "the server did not end well after the initialisation"
    trap - TERM INT
    sync -f "$data"
    rm "$data/.initialising"
    say "the database is initialised"
}

if [ "${1:0:1}" = - ]; then set -- mariadbd "$@"; fi
case "${1:-}" in
    mariadbd | mysqld)
        for argument in "$@"; do # asked only for a list of options or the like
            case $argument in --help | --version | -V | '-?' | --print-defaults) exec "$@" ;; esac
        done
        if [ "$(id -u)" = 0 ]; then
            mkdir -p /run/mysqld
            find "$data" /run/mysqld ! -user mysql -exec chown mysql:mysql {} +
            exec setpriv --reuid=mysql --regid=mysql --init-groups "$0" "$@"
        fi
        if [ -e "$data/.initialising" ]; then
            say "an initialisation was cut short; starting it again"
            find "$data" -mindepth 1 -delete
        fi
        [ -d "$data/mysql" ] || initialise "$@"
        ;;
esac
exec "$@"
