-- What TorchServe would drop, misread or answer in its own way: an option that is given twice, a query,
-- JSON that is sent as a form, an empty boundary, a token's scheme in small letters.
--
-- A body is read in pieces and never as a whole. Photos and JSON are not read at all.

-- The parts of a form that are looked at, in bytes where no unit is given. A photo is one part.
local MAX_FIELDS, MAX_PART_HEADERS, MAX_COMPARED, PIECE = 100, 8192, 65536, 65536
-- TorchServe's Netty accepts 8 KiB of headers in all.
local MAX_OPTIONS = 6144

local PHOTO = {data = true, body = true, image = true}
-- Of a query, TorchServe itself needs these, on the paths where it reads the query.
local ROUTING = {model_name = true, model_version = true}

-- The same type as application/json, but TorchServe parses only what is written so, and of two equal keys
-- it keeps the last. The handler parses all others itself.
local JSON = "Application/JSON"

-- The first bytes of the photos' files that the handler knows, as patterns.
local PHOTO_SIGNATURES = {
  "^\255\216\255", "^\137PNG\r\n", "^RIFF....WEBP", "^GIF8[79]a", "^BM....%z%z%z%z", "^II[*+]%z", "^MM%z[*+]",
  "^%z%z%z.ftyp",
}

local function json_text(text)
  return '"' .. text:gsub('[%c"\\\127]', function(character)
    return ("\\u%04x"):format(character:byte())
  end) .. '"'
end

local function quoted(name)
  return "'" .. name:sub(1, 60):gsub("[^\32-\126]", "?") .. "'"
end

local function refuse(handle, status, code, message, headers)
  headers = headers or {}
  headers[":status"] = tostring(status)
  headers["content-type"] = "application/json"
  handle:respond(headers, '{"error": {"code": "' .. code .. '", "status": ' .. status ..
    ', "message": ' .. json_text(message) .. "}}")
end

local function refuse_two_values(handle, name)
  refuse(handle, 400, "conflicting_options",
    "option " .. quoted(name) .. " is given twice, with two values; give it once")
end

local function refuse_two_photos(handle, name)
  refuse(handle, 400, "invalid_request",
    "the photo " .. quoted(name) .. " is given twice; send one photo, or KServe's 'instances'")
end

-- Percent encoding is undone; nil if it is not valid.
local function decoded(text)
  text = text:gsub("+", " ")
  if text:gsub("%%%x%x", ""):find("%", 1, true) then return nil end
  return (text:gsub("%%(%x%x)", function(code) return string.char(tonumber(code, 16)) end))
end

-- Notes a field's value, where it is short enough to be compared; true if the request is refused.
local function is_second_value(handle, seen, name, value)
  local before = seen[name]
  seen[name] = before or {value}
  if before == nil then return false end
  if PHOTO[name] then
    refuse_two_photos(handle, name)
    return true
  end
  if value == nil or before[1] ~= value then
    refuse_two_values(handle, name)
    return true
  end
  return false
end

-- Where a text begins in a body, from a position on, counted from 0; nil if it is not there.
local function find(body, text, from)
  local length = body:length()
  while from < length do
    local piece = body:getBytes(from, math.min(PIECE, length - from))
    local at = piece:find(text, 1, true)
    if at then return from + at - 1 end
    if from + #piece >= length then return nil end
    from = from + #piece - #text + 1
  end
end

local function refuse_many_fields(handle)
  refuse(handle, 400, "invalid_request",
    "the form has more than " .. MAX_FIELDS .. " fields; accepted: a photo and its options")
end

-- True if the request is refused.
local function check_urlencoded(handle, body)
  local seen, from, length = {}, 0, body:length()
  for _ = 1, MAX_FIELDS do
    local stop = find(body, "&", from) or length
    local field = body:getBytes(from, math.min(stop - from, MAX_COMPARED))
    local name, value = field:match("^([^=]*)=?(.*)$")
    if stop - from > MAX_COMPARED then value = nil end
    name, value = decoded(name), value and decoded(value)
    if name and name ~= "" and is_second_value(handle, seen, name, value) then return true end
    from = stop + 1
    if from >= length then return false end
  end
  refuse_many_fields(handle)
  return true
end

local function part_name(headers)
  for line in headers:gmatch("[^\r\n]+") do
    if line:lower():find("^content%-disposition%s*:") then
      return line:match('[;%s][Nn][Aa][Mm][Ee]%s*=%s*"([^"]*)"')
        or line:match("[;%s][Nn][Aa][Mm][Ee]%s*=%s*([^;%s]+)")
    end
  end
end

-- True if the request is refused. What is no multipart form is left to TorchServe and the handler.
local function check_multipart(handle, body, boundary)
  local seen, length, delimiter = {}, body:length(), "--" .. boundary
  local at = find(body, delimiter, 0)
  for _ = 0, MAX_FIELDS do
    if at == nil then return false end
    local begin = at + #delimiter
    local head = body:getBytes(begin, math.min(MAX_PART_HEADERS, length - begin))
    if head:sub(1, 2) == "--" then return false end
    local _, head_end = head:find("\r\n\r\n", 1, true)
    if head_end == nil then
      if #head < MAX_PART_HEADERS then return false end
      refuse(handle, 400, "invalid_request", "a part of the form has headers of more than " ..
        MAX_PART_HEADERS .. " bytes; accepted: Content-Disposition with a name, and Content-Type")
      return true
    end
    local value_begin = begin + head_end
    -- The line break before a delimiter belongs to it; that of an empty value ends the headers.
    local stop = find(body, "\r\n" .. delimiter, value_begin - 2)
    if stop == nil then return false end
    local size, value = math.max(0, stop - value_begin), nil
    if size <= MAX_COMPARED then value = size > 0 and body:getBytes(value_begin, size) or "" end
    local name = part_name(head:sub(1, head_end))
    if name and is_second_value(handle, seen, name, value) then return true end
    at = stop + 2
  end
  refuse_many_fields(handle)
  return true
end

-- Puts the options of the query into X-Explain, where the handler sees them; true if the request is
-- refused. Options that are given twice stand there twice, so it is the handler that compares them.
local function move_query(handle, headers)
  local path, query = headers:get(":path"):match("^([^?]*)%?(.*)$")
  local is_read = path and (path == "/invocations" or path:match("^/[^/]+/predict$"))
  local options, kept, seen = {}, {}, {}
  for pair in (query or ""):gmatch("[^&;]+") do
    local name, value = pair:match("^([^=]*)=?(.*)$")
    name, value = decoded(name), decoded(value)
    if name == nil or value == nil then
      refuse(handle, 400, "invalid_request",
        "the query cannot be read; accepted: name=value pairs with & between them, and %25 for %")
      return true
    end
    if is_read and (ROUTING[name] or PHOTO[name]) then
      if is_second_value(handle, seen, name, value) then return true end
      kept[#kept + 1] = pair
    elseif name == "options" then
      -- An object, as in the form field of this name. A header has no line breaks.
      options[#options + 1] = (value:gsub("%c", " "))
    else
      options[#options + 1] = "{" .. json_text(name) .. ": " .. json_text(value) .. "}"
    end
  end
  local objects = {}
  for index = 0, headers:getNumValues("x-explain") - 1 do
    objects[#objects + 1] = headers:getAtIndex("x-explain", index)
  end
  for _, object in ipairs(options) do objects[#objects + 1] = object end
  if query == nil and #objects < 2 then return false end
  -- Several lines of a header are one with commas between (RFC 9110, 5.3).
  local explain = table.concat(objects, ", ")
  if #explain > MAX_OPTIONS then
    refuse(handle, 413, "json_too_large", "the options of query and X-Explain have " .. #explain ..
      " bytes; accepted: up to " .. MAX_OPTIONS .. ", or options in the body")
    return true
  end
  if #objects > 0 then headers:replace("x-explain", explain) end
  if query ~= nil then
    headers:replace(":path", #kept > 0 and path .. "?" .. table.concat(kept, "&") or path)
  end
  return false
end

-- The content type, once where it was given twice; nil if the request is refused.
local function content_type(handle, headers)
  local given = headers:get("content-type") or ""
  local one, other = given:match("^([^,]+),%s*(%a[%w.+-]*/.+)$")
  if one == nil or one:find('"', 1, true) then return given end
  if one ~= other then
    refuse(handle, 400, "invalid_request",
      "the header Content-Type is given twice, with two values; give it once")
    return nil
  end
  headers:replace("content-type", one)
  return one
end

-- Makes of a form what TorchServe and the handler read as it was meant, or refuses it.
local function check_body(handle, headers)
  local given = content_type(handle, headers)
  if given == nil then return end
  local kind, parameters = given:match("^%s*([^;%s]*)(.*)$")
  kind = kind:lower()
  if kind == "application/json" then
    headers:replace("content-type", JSON)
    return
  end
  local is_urlencoded = kind == "application/x-www-form-urlencoded"
  if not is_urlencoded and kind ~= "multipart/form-data" then return end
  local encoding = headers:get("content-encoding")
  if encoding and encoding:lower() ~= "identity" then
    refuse(handle, 400, "invalid_request", "a form cannot be compressed by Content-Encoding " ..
      quoted(encoding) .. "; accepted: the form as it is, or a photo's file or JSON as the compressed body")
    return
  end
  if not is_urlencoded then
    local boundary = parameters:match('[;%s][Bb][Oo][Uu][Nn][Dd][Aa][Rr][Yy]%s*=%s*"([^"]*)"')
      or parameters:match("[;%s][Bb][Oo][Uu][Nn][Dd][Aa][Rr][Yy]%s*=%s*([^;%s]*)")
    if boundary == nil then return end
    if boundary == "" then
      refuse(handle, 400, "invalid_request", "the content type's boundary is empty; accepted: " ..
        "'multipart/form-data; boundary=..' with the boundary that begins each part after '--' " ..
        "(an HTTP library sets it by itself)")
      return
    end
    -- TorchServe reads no capitals in it.
    headers:replace("content-type", 'multipart/form-data; boundary="' .. boundary .. '"')
    local body = handle:body()
    if body ~= nil then check_multipart(handle, body, boundary) end
    return
  end
  local body = handle:body()
  if body == nil or body:length() == 0 then return end
  -- As curl -d sends it: after a byte order mark and white space, no field begins like this.
  if body:getBytes(0, math.min(100, body:length())):find("^[\239\187\191%s]*[{%[]") then
    -- The headers from before the body was awaited are not valid any more.
    handle:headers():replace("content-type", JSON)
    return
  end
  -- As curl --data-binary sends a photo without a content type: no field begins like a photo's file.
  local first = body:getBytes(0, math.min(12, body:length()))
  for _, signature in ipairs(PHOTO_SIGNATURES) do
    if first:find(signature) then
      handle:headers():replace("content-type", "application/octet-stream")
      return
    end
  end
  check_urlencoded(handle, body)
end

-- Whether the setting cors_origins lists an origin.
local function may_call(handle, origin)
  for _, listed in ipairs(handle:filterContext():get("cors_origins") or {}) do
    if listed.exact == origin then return true end
  end
  return false
end

-- Whether the server has an Open Inference front, which listens somewhere else than the server itself.
local function has_front(handle)
  local context = handle:filterContext()
  return context:get("open_inference_address") ~= context:get("inference_address")
    or context:get("open_inference_port") ~= context:get("inference_port")
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local metadata = handle:streamInfo():dynamicMetadata()
  local origin = headers:get("origin")
  if origin and may_call(handle, origin) then metadata:set("camserve", "origin", origin) end
  local is_grpc = (headers:get("content-type") or ""):lower():find("^application/grpc")
  if (metadata:get("camserve") or {}).too_large then
    local limit = handle:filterContext():get("max_request_size")
    local message = ("the request is larger than max_request_size (%d bytes); " ..
      "accepted: a smaller photo, or its file as it is instead of base64"):format(limit)
    -- gRPC's own status and words for a message that is too large.
    refuse(handle, 413, "request_too_large", message, is_grpc and
      {["grpc-status"] = "8", ["grpc-message"] = "message larger than max: " .. message})
    return
  end
  local authorization = headers:get("authorization")
  if authorization ~= nil then
    metadata:set("camserve", "has_token", true)
    -- The name of a scheme has no case (RFC 9110, 11.1), but TorchServe reads only this one.
    local token = authorization:match("^[Bb][Ee][Aa][Rr][Ee][Rr]%s+(.*)$")
    if token then headers:replace("authorization", "Bearer " .. token) end
  end
  local method = headers:get(":method")
  if handle:streamInfo():routeName() == "preflight" then
    -- The filter for CORS answers those of the origins that may call.
    refuse(handle, 405, "method_not_allowed",
      "pages of this origin may not call; accepted: those of the edge's setting cors_origins",
      {allow = "POST, PUT"})
    return
  end
  if handle:streamInfo():routeName() == "open_inference" and not has_front(handle) then
    refuse(handle, 404, "not_found", "no such path here")
    return
  end
  -- Envoy answers 100-continue by itself. TorchServe answers others with a 417 without a body.
  local expect = headers:get("expect")
  if expect ~= nil and not is_grpc then
    refuse(handle, 417, "expectation_failed",
      "the header Expect is " .. quoted(expect) .. "; accepted: none, or 100-continue")
    return
  end
  if is_grpc or (method ~= "POST" and method ~= "PUT") then return end
  if not move_query(handle, headers) then check_body(handle, headers) end
end

-- As expose_headers in envoy.yaml.
local EXPOSED = "retry-after, www-authenticate, x-request-id"

-- TorchServe answers a form that it cannot parse with 500 or 403. Its answer repeats the content that it
-- could not parse, even if that is 28 MB. The fault is the caller's.
local UNREAD_FORM = {
  "ErrorDataDecoderException", "ArrayIndexOutOfBoundsException", "StringIndexOutOfBoundsException",
  "IllegalCharsetNameException",
}

local function replace_body(handle, status, code, message)
  local headers, body = handle:headers(), handle:body()
  headers:replace("content-length", body:setBytes('{"error": {"code": "' .. code .. '", "status": ' ..
    status .. ', "message": ' .. json_text(message) .. "}}"))
  headers:replace("content-type", "application/json")
  headers:replace(":status", tostring(status))
end

-- The filter for CORS does so for the routes that are forwarded. A page may also read why another is not.
local function allow_origin(handle)
  local headers = handle:headers()
  local origin = (handle:streamInfo():dynamicMetadata():get("camserve") or {}).origin
  if origin and headers:get("access-control-allow-origin") == nil then
    headers:replace("access-control-allow-origin", origin)
    headers:replace("access-control-expose-headers", EXPOSED)
  end
end

function envoy_on_response(handle)
  allow_origin(handle)
  local status = handle:headers():get(":status")
  if status ~= "500" and status ~= "403" and status ~= "400" then return end
  local body = handle:body()
  if body == nil then return end
  local text = body:getBytes(0, math.min(200, body:length()))
  if status == "400" then
    if not text:find('"type": "InvalidKeyException"', 1, true) then return end
    local metadata = handle:streamInfo():dynamicMetadata():get("camserve") or {}
    -- RFC 6750, 3: which error it is, if a token was sent.
    local challenge = 'Bearer realm="camserve"' .. (metadata.has_token and ', error="invalid_token"' or "")
    handle:headers():replace("www-authenticate", challenge)
    replace_body(handle, 401, "unauthorized",
      "the token is missing, wrong or expired; accepted: Authorization: Bearer TOKEN")
    return
  end
  for _, type in ipairs(UNREAD_FORM) do
    if text:find('"type": "' .. type .. '"', 1, true) then
      replace_body(handle, 400, "invalid_request",
        "the form cannot be read; accepted: multipart/form-data with a boundary and a name for each " ..
        "part, or application/x-www-form-urlencoded")
      return
    end
  end
end
