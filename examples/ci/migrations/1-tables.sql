CREATE TABLE product (
    id    serial PRIMARY KEY,
    name  text NOT NULL UNIQUE,
    price numeric(10, 2) NOT NULL CHECK (price >= 0)
);
CREATE TABLE sale (
    id      serial PRIMARY KEY,
    product integer NOT NULL REFERENCES product,
    amount  integer NOT NULL CHECK (amount > 0)
);
