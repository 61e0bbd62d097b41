-- Reads a body that is above the limit to its end, and keeps none of it.
--
-- A client that still sends when it is refused loses the answer: HTTP/2 resets the stream, HTTP/1.1 closes
-- the connection. So the refusal, in edge.lua, waits until the body has arrived. request_timeout bounds how
-- long that takes.
function envoy_on_request(handle)
  local limit = handle:filterContext():get("max_request_size")
  local declared = handle:headers():get("content-length")
  declared = declared and tonumber(declared)
  if declared and declared <= limit then return end
  local received, told = 0, false
  for chunk in handle:bodyChunks() do
    received = received + chunk:length()
    if math.max(declared or 0, received) > limit then
      if not told then
        handle:streamInfo():dynamicMetadata():set("camserve", "too_large", true)
        told = true
      end
      chunk:setBytes("")
    end
  end
end
